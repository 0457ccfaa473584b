//! How soon a forwarding thread has its turn on a core that it shares, with signaling or with anything else.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::time::Duration;

/// The slice that a forwarding thread asks for: the shortest that Linux gives. The usual one is 1 to 3 ms.
const SHORT: Duration = Duration::from_micros(100);

/// `struct sched_attr` as it was first (sched_setattr(2)); the libc crate has it for some systems only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Has the calling thread run in short slices. Whoever asks for less at a time has its turn sooner: woken, it does not wait until
/// another's longer slice is over, and gets no more of the core for that. Needs no privilege. Kernels before Linux 6.12 take it and
/// change nothing; a thread that was given another policy by hand is left as it is, and so is one where it is refused.
pub(crate) fn ask_for_short() {
    if let Err(error) = ask_for(SHORT) {
        tracing::debug!(%error, "a thread that forwards has its turns as late as any other");
    }
}

/// # Errors
/// What sched_getattr(2) and sched_setattr(2) say.
fn ask_for(slice: Duration) -> io::Result<()> {
    let mut attributes = read()?;
    if attributes.policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.runtime_ns = slice.as_nanos() as u64;
    // SAFETY: the pointer is to a live structure of the size that it says, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read() -> io::Result<Attributes> {
    // SAFETY: a plain C structure for which all-zero bytes are a valid value.
    let mut attributes: Attributes = unsafe { mem::zeroed() };
    let size = mem::size_of::<Attributes>() as libc::c_uint;
    // SAFETY: the pointer is to a live, writable structure of the size that is said.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_asks_for_itself_and_keeps_the_rest() {
        std::thread::spawn(|| {
            let before = read().unwrap();
            ask_for(SHORT).unwrap();
            let after = read().unwrap();
            assert_eq!((after.policy, after.nice), (before.policy, before.nice));
            // Kernels before 6.12 know nothing of it.
            assert!([0, SHORT.as_nanos() as u64].contains(&after.runtime_ns), "{after:?}");
            println!("slices of {} ns before, {} ns now", before.runtime_ns, after.runtime_ns);
        })
        .join()
        .unwrap();
    }
}
