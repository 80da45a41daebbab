//! Which CPUs the cores run on.

use super::options::Cores;

/// The CPUs to run on, one a core: those asked for, else those this process may use, at most the cgroup's quota.
///
/// # Errors
/// What was asked for and what there is.
pub(super) fn choose(cores: &Cores) -> Result<Vec<usize>, String> {
    let mut allowed = allowed();
    match cores {
        Cores::Auto => {
            let quota = cgroup_quota().unwrap_or(allowed.len()).max(1);
            allowed.truncate(quota);
            Ok(allowed)
        }
        Cores::Count(0) => Err("0 cores were asked for, at least 1 is needed".to_owned()),
        Cores::Count(n) if *n <= allowed.len() => Ok(allowed[..*n].to_vec()),
        Cores::Count(n) => {
            // more threads than CPUs is of use in tests only, but it works: they share
            Ok((0..*n).map(|core| allowed[core % allowed.len()]).collect())
        }
        Cores::List(list) => match list.iter().find(|cpu| !allowed.contains(cpu)) {
            _ if list.is_empty() => Err("an empty list of cores was given".to_owned()),
            Some(cpu) => {
                Err(format!("CPU {cpu} is not among those this process may use: {allowed:?} (taskset, cpuset)"))
            }
            None => Ok(list.clone()),
        },
    }
}

/// The CPUs of the affinity mask.
pub(super) fn allowed() -> Vec<usize> {
    let mut allowed: Vec<usize> =
        core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
    if allowed.is_empty() {
        allowed.push(0);
    }
    allowed
}

/// Whole CPUs of the cgroup's bandwidth limit (cgroup v2, cpu.max), if there is one.
fn cgroup_quota() -> Option<usize> {
    cgroup_files("cpu.max").filter_map(|text| parse_quota(&text)).min()
}

/// The contents of this control file of the process's cgroup and of its ancestors: each of them limits it.
pub(super) fn cgroup_files(name: &str) -> impl Iterator<Item = String> {
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let dirs: Vec<_> =
        std::path::Path::new("/sys/fs/cgroup").join(path).ancestors().map(|dir| dir.join(name)).collect();
    dirs.into_iter().filter_map(|file| std::fs::read_to_string(file).ok())
}

fn parse_quota(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    Some((quota / period.max(1)).max(1) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_whole_cpus_and_at_least_one() {
        assert_eq!(parse_quota("max 100000\n"), None);
        assert_eq!(parse_quota("250000 100000\n"), Some(2));
        assert_eq!(parse_quota("50000 100000\n"), Some(1));
    }

    #[test]
    fn what_cannot_be_had_is_named() {
        assert!(choose(&Cores::Count(0)).is_err());
        assert!(choose(&Cores::List(vec![])).is_err());
        assert!(choose(&Cores::List(vec![99_999])).unwrap_err().contains("99999"));
        assert_eq!(choose(&Cores::Count(1)).unwrap().len(), 1);
    }
}
