//! How soon a forwarding thread has its turn on a core that it shares, with signaling or with anything else.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::time::Duration;

/// The slice that a forwarding thread asks for: the shortest that Linux gives. The usual one is 1 to 3 ms.
const SHORT: Duration = Duration::from_micros(100);

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
    if attributes.sched_policy != libc::SCHED_OTHER as u32 {
        return Ok(());
    }
    attributes.sched_runtime = slice.as_nanos() as u64;
    // SAFETY: the pointer is to a live structure of the size that it says, which the kernel only reads.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn read() -> io::Result<libc::sched_attr> {
    // SAFETY: a plain C structure for which all-zero bytes are a valid value.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let size = mem::size_of::<libc::sched_attr>() as libc::c_uint;
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
            assert_eq!((after.sched_policy, after.sched_nice), (before.sched_policy, before.sched_nice));
            // Kernels before 6.12 know nothing of it.
            assert!([0, SHORT.as_nanos() as u64].contains(&after.sched_runtime), "{}", after.sched_runtime);
            println!("slices of {} ns before, {} ns now", before.sched_runtime, after.sched_runtime);
        })
        .join()
        .unwrap();
    }
}
