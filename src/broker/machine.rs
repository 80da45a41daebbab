//! What this machine has, held against what the limits allow.

use tracing::{info, warn};

use super::options::ServerOptions;
use super::server::ServerError;
use crate::base::limits::Limits;
use crate::reactor::sys;

/// Descriptors the broker needs besides its connections': rings, eventfds, listeners, logs, the admin page.
const OTHER_FILES: u64 = 64;

/// Raises the soft limit on open files to the hard one, lets `max_connections` follow it down, and checks that the
/// worst case fits in memory.
///
/// # Errors
/// [`ServerError::Memory`], with the sum.
pub(super) fn fit(mut options: ServerOptions, cores: usize) -> Result<ServerOptions, ServerError> {
    for misfit in misfits(&options, cores, super::cpus::allowed().len()) {
        warn!("{misfit}");
    }
    let files = raise_nofile();
    let room = u32::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(u32::MAX).max(1);
    if options.limits.max_connections > room {
        let wanted = options.limits.max_connections;
        if wanted != Limits::default().max_connections {
            warn!(wanted, room, "max_connections follows the limit on open files: raise it (ulimit -Hn, LimitNOFILE=)");
        }
        options.limits.max_connections = room;
        options.limits.max_unauthenticated = options.limits.max_unauthenticated.min(room);
    }
    let worst = options.limits.worst_case(options.layout(cores));
    let (have, whose) = memory();
    info!("the worst case, when every peer does its worst at once:\n{worst}");
    if worst.total() as u64 > have {
        return Err(ServerError::Memory(format!(
            "the limits allow {} MiB in the worst case, {whose} has {} MiB: lower limits.core_buffer, \
             limits.max_connections or --cores, or give it more memory\n{worst}",
            worst.total() >> 20,
            have >> 20
        )));
    }
    Ok(options)
}

/// What works, but not as it was meant: more cores than CPUs, a channel spread over more cores than run.
fn misfits(options: &ServerOptions, cores: usize, cpus: usize) -> Vec<String> {
    let mut misfits = Vec::new();
    if cores > cpus {
        misfits.push(format!("{cores} cores were asked for, this process may use {cpus} CPUs: threads share them"));
    }
    for channel in options.channels.iter().filter(|channel| usize::from(channel.spread) > cores) {
        let (name, spread) = (&channel.name, channel.spread);
        misfits.push(format!("channel.{name}.spread = {spread}: there are {cores} cores, it is spread over those"));
    }
    misfits
}

/// Raises the soft limit on open files to the hard one; says what it is then.
fn raise_nofile() -> u64 {
    sys::raise_nofile().unwrap_or_else(|error| {
        warn!(%error, "the limit on open files could not be raised");
        rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
    })
}

/// Bytes of memory there are for this process, and whose they are: the machine's, or its cgroup's.
fn memory() -> (u64, &'static str) {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let machine = machine.map_or(u64::MAX, |kib| kib * 1024);
    let v2 = super::cpus::cgroup_files("memory.max");
    let v1 = std::fs::read_to_string("/sys/fs/cgroup/memory/memory.limit_in_bytes").ok();
    match v2.chain(v1).filter_map(|text| text.trim().parse::<u64>().ok()).min() {
        Some(cgroup) if cgroup < machine => (cgroup, "the cgroup"),
        _ => (machine, "the machine"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ChannelId;
    use crate::broker::options::ChannelOptions;

    #[test]
    fn what_does_not_fit_the_machine_is_told() {
        let resize = ChannelOptions { spread: 4, ..ChannelOptions::new(ChannelId::named("resize"), "resize") };
        let options = ServerOptions { channels: vec![resize], ..ServerOptions::default() };
        assert_eq!(misfits(&options, 4, 4), Vec::<String>::new());
        let told = misfits(&options, 3, 2);
        assert!(told[0].starts_with("3 cores were asked for, this process may use 2 CPUs"), "{told:?}");
        assert!(told[1].starts_with("channel.resize.spread = 4: there are 3 cores"), "{told:?}");
        assert_eq!(told.len(), 2);
    }
}
