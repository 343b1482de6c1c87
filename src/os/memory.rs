//! Giving memory back. Most of what a supervisor maps is code and tables that its start needed (arguments, service
//! files, the first spawns) and that idling never touches; the kernel maps such pages sixteen at a time and takes them
//! from nobody who is not short of memory. What is given back is still in the page cache and comes again by a fault.

use nix::libc;
use std::time::Duration;

/// How long whoever asks gets to come to rest.
const REST: Duration = Duration::from_millis(100);

/// Has the memory given back a moment later, by a thread that ends with that: whoever gave it back itself would map
/// again what leads from there to its rest.
pub fn give_back_after(time: Duration) {
    let thread = std::thread::Builder::new().name("memory".to_owned()).stack_size(32 << 10);
    // Without it we keep what we have.
    let _ = thread.spawn(move || {
        std::thread::sleep(time);
        give_back();
    });
}

/// The same for one who is about to rest.
pub fn give_back_soon() {
    give_back_after(REST);
}

/// How many heaps threads may make. Each begins with pages of its own, and keeps what was freed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heaps {
    /// For one thread that works and others that hardly allocate.
    One,
    /// For several that work.
    Two,
}

/// Has the allocator keep little of what is freed: by itself it learns from the first large buffer to keep all of that
/// size, which is right for a program that does one thing and wrong for one that idles for days between two large ones.
#[allow(unsafe_code, reason = "the allocator's options have no safe interface")]
pub fn keep_little(heaps: Heaps) {
    /// Buffers of this size are mapped and given back one by one; what is free at a heap's end, from this size on.
    #[cfg(target_env = "gnu")]
    const LARGE: libc::c_int = 1 << 20;
    #[cfg(target_env = "gnu")]
    // SAFETY: numbers only; meant to be called before there is a second thread.
    // JUSTIFICATION: the environment, which could say it too, is read before `main`.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE);
        libc::mallopt(
            libc::M_ARENA_MAX,
            match heaps {
                Heaps::One => 1,
                Heaps::Two => 2,
            },
        );
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = heaps;
}

/// Unmaps the pages of our own executable that cannot have been written to, and returns free heap. For moments after
/// which little happens; whatever is needed again is mapped again.
#[allow(unsafe_code, reason = "neither the program's headers nor madvise have a safe interface")]
pub fn give_back() {
    // SAFETY: the callback gets a null pointer, which it does not use, and returns before the call does.
    // JUSTIFICATION: only the loader knows where our segments lie.
    unsafe { libc::dl_iterate_phdr(Some(of_program), std::ptr::null_mut()) };
    #[cfg(target_env = "gnu")]
    // SAFETY: a number only; the allocator keeps what is in use.
    // JUSTIFICATION: it gives nothing back by itself from below what is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Called with the headers of each object that is loaded, the program first: ends the walk there.
#[allow(unsafe_code, reason = "a callback of the loader, and madvise")]
unsafe extern "C" fn of_program(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _nothing: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description, whose headers are as many as it says and stay where they are.
    // JUSTIFICATION: as above.
    let (base, headers) = unsafe {
        let info = &*info;
        (info.dlpi_addr, std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()))
    };
    for header in headers {
        if let Some((from, length)) =
            clean(header.p_type, header.p_flags, base + header.p_vaddr, header.p_memsz)
        {
            // SAFETY: whole pages of a segment that is never writable (relocations lie in one that is), so they are as
            // they are in the file, and come from there again at the next touch, this very code included.
            // JUSTIFICATION: there is no other way to unmap what stays valid.
            unsafe { libc::madvise(from as *mut libc::c_void, length, libc::MADV_DONTNEED) };
        }
    }
    1
}

/// The whole pages of a segment that is loaded and never writable: where they begin, and how many bytes they are.
fn clean(kind: u32, flags: u32, start: u64, size: u64) -> Option<(usize, usize)> {
    /// As large as pages get on the machines that we run on; a smaller page fits too.
    const PAGE: u64 = 1 << 16;
    let from = start.next_multiple_of(PAGE);
    let to = (start + size) / PAGE * PAGE;
    let is_clean = kind == libc::PT_LOAD && flags & libc::PF_W == 0 && to > from;
    is_clean.then(|| Some((usize::try_from(from).ok()?, usize::try_from(to - from).ok()?)))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use libc::{PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};

    #[test]
    fn only_whole_pages_that_are_never_written_are_given_back() {
        assert_eq!(clean(PT_LOAD, PF_R | PF_X, 0x1_0000, 0x3_0000), Some((0x1_0000, 0x3_0000)));
        assert_eq!(clean(PT_LOAD, PF_R, 0x1_0010, 0x3_0000), Some((0x2_0000, 0x2_0000)));
        assert_eq!(clean(PT_LOAD, PF_R | PF_W, 0x1_0000, 0x3_0000), None);
        assert_eq!(clean(PT_NOTE, PF_R, 0x1_0000, 0x3_0000), None);
        assert_eq!(clean(PT_LOAD, PF_R, 0x1_0010, 0x8_000), None);
    }

    #[test]
    fn what_was_given_back_is_still_there() {
        let before = String::from_utf8_lossy(include_bytes!("memory.rs")).len();
        give_back();
        assert_eq!(String::from_utf8_lossy(include_bytes!("memory.rs")).len(), before);
        // Vtables and other relocated tables are as they were.
        let shown: Vec<Box<dyn std::fmt::Display>> = vec![Box::new(1), Box::new("two")];
        assert_eq!(shown.iter().map(ToString::to_string).collect::<String>(), "1two");
    }
}
