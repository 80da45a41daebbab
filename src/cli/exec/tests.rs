use super::*;

#[test]
fn headers_become_variables() {
    let (name, value) = variable("content-type", b"text/plain").unwrap();
    assert_eq!((name.as_str(), value.to_str()), ("CORELAY_HEADER_CONTENT_TYPE", Some("text/plain")));
    assert_eq!(variable("a.b=c", b"\xff").unwrap().0, "CORELAY_HEADER_A_B_C");
    assert_eq!(variable("a", b"x\0y"), None);
}

#[test]
fn the_end_of_stderr_is_kept_on_a_boundary() {
    assert_eq!(clipped("short"), "short");
    let long = format!("x{}", "ä".repeat(1000));
    let clipped = clipped(&long);
    assert!(clipped.len() <= TAIL && clipped.len() >= TAIL - 1 && clipped.chars().all(|c| c == 'ä'));
}
