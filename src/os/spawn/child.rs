//! The child's side, between fork and exec: async-signal-safe calls on memory that was laid out before, each step by its
//! number.

use super::SpawnRequest;
use nix::libc;
use std::os::fd::RawFd;

/// The steps in the child, in their order.
pub(super) const STEPS: [&str; 14] = [
    "run the program",
    "start a session",
    "reset signals",
    "close descriptors",
    "hand on the lock",
    "set the limits of open files and cores",
    "set the priority",
    "set oom_score_adj",
    "drop capabilities",
    "change to the user and groups",
    "keep the capabilities that it was to keep",
    "set no_new_privs and the parent-death signal",
    "enter the working directory",
    "stay with a parent that died meanwhile",
];

/// What the child needs, laid out before the fork.
pub(super) struct Prepared {
    program: std::ffi::CString,
    argv: Strings,
    env: Strings,
    tell: RawFd,
    identity: Option<(u32, u32, Vec<libc::gid_t>)>,
    seen: Vec<libc::gid_t>,
    keep: Vec<RawFd>,
    nofile: Option<(u64, u64)>,
    core: Option<u64>,
    capabilities: Option<u64>,
    nice: Option<i32>,
    oom: Option<Vec<u8>>,
    no_new_privileges: bool,
    parent_death: Option<libc::c_int>,
    directory: std::ffi::CString,
    parent: libc::pid_t,
}

/// Strings for the kernel: the texts, and pointers to them with a null pointer at the end.
struct Strings {
    pointers: Vec<*const libc::c_char>,
    _texts: Vec<std::ffi::CString>,
}

impl Strings {
    fn new(texts: impl Iterator<Item = String>) -> std::io::Result<Strings> {
        let texts: Vec<std::ffi::CString> = texts.map(std::ffi::CString::new).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const libc::c_char> = texts.iter().map(|t| t.as_ptr()).collect();
        pointers.push(std::ptr::null());
        Ok(Strings { pointers, _texts: texts })
    }
}

#[allow(unsafe_code, reason = "a raw pointer is neither Send nor Sync by itself")]
// SAFETY: the pointers lead into the texts beside them, which nobody changes or moves (their bytes are on the heap).
// JUSTIFICATION: `pre_exec` asks for both, and what exec takes are pointers.
unsafe impl Send for Strings {}
#[allow(unsafe_code, reason = "as above")]
// SAFETY: as above; nothing is written through them.
// JUSTIFICATION: as above.
unsafe impl Sync for Strings {}

impl Prepared {
    pub(super) fn new(request: &SpawnRequest, tell: RawFd) -> std::io::Result<Prepared> {
        let identity = request.identity.as_ref().map(|who| {
            let mut groups = who.groups.clone();
            groups.extend(request.tag);
            groups.sort_unstable();
            groups.dedup();
            (who.uid, who.gid, groups)
        });
        let room = identity.as_ref().map_or(0, |(_, _, groups)| groups.len() + 1);
        let directory =
            request.directory.as_deref().map_or("/".as_bytes(), |d| d.as_os_str().as_encoded_bytes());
        Ok(Prepared {
            program: std::ffi::CString::new(request.argv.first().cloned().unwrap_or_default())?,
            argv: Strings::new(request.argv.iter().cloned())?,
            env: Strings::new(request.env.iter().map(|(k, v)| format!("{k}={v}")))?,
            tell,
            identity,
            seen: vec![0; room],
            keep: request.keep.clone(),
            nofile: request.nofile,
            core: request.core,
            capabilities: request.capabilities,
            nice: request.nice,
            oom: request.oom_score_adj.map(|n| n.to_string().into_bytes()),
            no_new_privileges: request.no_new_privileges,
            parent_death: request.parent_death.map(|s| s as libc::c_int),
            // A NUL cannot come out of a service file; the empty path then fails with ENOENT and is named.
            directory: std::ffi::CString::new(directory).unwrap_or_default(),
            parent: nix::unistd::getpid().as_raw(),
        })
    }

    pub(super) fn become_the_service(&mut self) -> std::io::Result<()> {
        for (step, act) in [
            (1, Prepared::session as fn(&mut Prepared) -> libc::c_int),
            (2, Prepared::signals),
            (3, Prepared::descriptors),
            (4, Prepared::inherited),
            (5, Prepared::limits),
            (6, Prepared::priority),
            (7, Prepared::oom),
            (8, Prepared::bounding),
            (9, Prepared::identity),
            (10, Prepared::ambient),
            (11, Prepared::process_flags),
            (12, Prepared::directory),
            (13, Prepared::parent_lives),
            (0, Prepared::exec),
        ] {
            if act(self) != 0 {
                let error = std::io::Error::last_os_error();
                #[allow(unsafe_code, reason = "write to the pipe that names the failed step")]
                // SAFETY: one byte from a live local to a descriptor that is open until exec.
                // JUSTIFICATION: async-signal-safe, which `std`'s writers do not promise.
                unsafe {
                    libc::write(self.tell, std::ptr::from_ref(&step).cast(), 1);
                }
                return Err(error);
            }
        }
        Ok(())
    }
}

/// The steps. Each returns 0, or -1 with errno set.
#[allow(unsafe_code, reason = "system calls between fork and exec")]
// JUSTIFICATION: async-signal-safe calls on memory prepared by `new`; `nix` and `std` offer some of them only with
// allocation or not at all.
impl Prepared {
    fn session(&mut self) -> libc::c_int {
        // SAFETY: no memory involved. A freshly forked child leads no group, so this can only succeed.
        if unsafe { libc::setsid() } < 0 { -1 } else { 0 }
    }

    /// Rust runtimes ignore SIGPIPE, tokio catches several: a child must start with none of that.
    fn signals(&mut self) -> libc::c_int {
        // Larger than the kernel's `struct sigaction` on any architecture.
        let default = [0_u64; 8];
        // SAFETY: `sigset_t` is a plain bit field, valid when zeroed, and is initialised by sigemptyset; `default` lives
        // through the calls that read it.
        unsafe {
            for signal in 1_i32..=64 {
                // By the system call itself: the C library keeps two numbers for itself and would leave them ignored
                // where we inherited them so. All zero is SIG_DFL with no flags; KILL and STOP answer EINVAL.
                libc::syscall(
                    libc::SYS_rt_sigaction,
                    signal,
                    default.as_ptr(),
                    std::ptr::null_mut::<u64>(),
                    8_usize,
                );
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
        }
    }

    /// Everything above stderr goes at exec, whoever opened it and forgot the flag.
    fn descriptors(&mut self) -> libc::c_int {
        const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
        // SAFETY: flags on descriptors only.
        unsafe {
            if libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, CLOSE_RANGE_CLOEXEC) == 0 {
                return 0;
            }
            // A kernel before 5.11: one by one, as far as the table may reach.
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            let last = i32::try_from(limit.rlim_cur.min(65_536)).unwrap_or(65_536);
            for fd in 3..last {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        0
    }

    fn inherited(&mut self) -> libc::c_int {
        for fd in &self.keep {
            // SAFETY: a flag on a descriptor.
            if unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) } < 0 {
                return -1;
            }
        }
        0
    }

    fn limits(&mut self) -> libc::c_int {
        if let Some((soft, hard)) = self.nofile {
            let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
            // SAFETY: reads a live local.
            if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
                return -1;
            }
        }
        let Some(bytes) = self.core else { return 0 };
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: reads a live local.
        unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) }
    }

    fn priority(&mut self) -> libc::c_int {
        let Some(nice) = self.nice else { return 0 };
        // SAFETY: no memory involved.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }
    }

    fn oom(&mut self) -> libc::c_int {
        let Some(text) = &self.oom else { return 0 };
        // SAFETY: a literal with its NUL and a buffer with its own length; the descriptor is closed again.
        unsafe {
            let fd = libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            if fd < 0 {
                return -1;
            }
            let written = libc::write(fd, text.as_ptr().cast(), text.len());
            let errno = *libc::__errno_location();
            libc::close(fd);
            *libc::__errno_location() = errno;
            if written < 0 { -1 } else { 0 }
        }
    }

    /// Groups, gid, uid, in this order, and then the proof.
    fn identity(&mut self) -> libc::c_int {
        let Some((uid, gid, groups)) = &self.identity else { return 0 };
        let (uid, gid) = (*uid, *gid);
        // SAFETY: `groups` and `seen` are live buffers passed with their lengths; `seen` was allocated before the fork.
        unsafe {
            if libc::setgroups(groups.len(), groups.as_ptr()) != 0
                || libc::setresgid(gid, gid, gid) != 0
                || libc::setresuid(uid, uid, uid) != 0
            {
                return -1;
            }
            let (mut r, mut e, mut s) = (0, 0, 0);
            let mut right = libc::getresuid(&raw mut r, &raw mut e, &raw mut s) == 0 && [r, e, s] == [uid; 3];
            right &= libc::getresgid(&raw mut r, &raw mut e, &raw mut s) == 0 && [r, e, s] == [gid; 3];
            let room = libc::c_int::try_from(self.seen.len()).unwrap_or(0);
            let count = libc::getgroups(room, self.seen.as_mut_ptr());
            // The kernel keeps them sorted, and so do we.
            right &= usize::try_from(count).is_ok_and(|n| self.seen.get(..n) == Some(groups.as_slice()));
            right &= uid == 0 || libc::setuid(0) != 0;
            if right {
                return 0;
            }
            *libc::__errno_location() = libc::EPERM;
        }
        -1
    }

    /// What the bounding set lacks cannot come back, by no set-uid program either.
    fn bounding(&mut self) -> libc::c_int {
        let Some(kept) = self.capabilities else { return 0 };
        for number in 0..64_u64 {
            // SAFETY: no memory involved.
            unsafe {
                // The kernel knows fewer than 64: the first that it does not know is the end.
                if libc::prctl(libc::PR_CAPBSET_READ, number, 0, 0, 0) < 0 {
                    break;
                }
                if kept & (1 << number) == 0 && libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) != 0 {
                    return -1;
                }
            }
        }
        // SAFETY: no memory involved. Without this a change of the user takes all of them.
        if kept != 0 { unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 1, 0, 0, 0) } } else { 0 }
    }

    /// Another user than root has what was kept only as ambient capabilities. Root gets at exec what the bounding set has
    /// left, and what we ourselves were given as inheritable besides: that goes here.
    fn ambient(&mut self) -> libc::c_int {
        let Some(kept) = self.capabilities else { return 0 };
        let (low, high) = ((kept & 0xffff_ffff) as u32, (kept >> 32) as u32);
        // linux/capability.h: version 3, and effective, permitted, inheritable, twice 32 bits.
        let mut header = [0x2008_0522_u32, 0];
        let mut data = [0_u32; 6];
        let root = self.identity.as_ref().is_none_or(|(uid, ..)| *uid == 0);
        // SAFETY: two live locals of the shape that version 3 asks for.
        unsafe {
            if libc::syscall(libc::SYS_capget, header.as_mut_ptr(), data.as_mut_ptr()) != 0 {
                return -1;
            }
            data = match root {
                true => [data[0], data[1], data[2] & low, data[3], data[4], data[5] & high],
                false => [low, low, low, high, high, high],
            };
            if libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) != 0 {
                return -1;
            }
            if root {
                return 0;
            }
            for number in (0..64_u64).filter(|n| kept & (1 << n) != 0) {
                if libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, number, 0, 0) != 0 {
                    return -1;
                }
            }
        }
        0
    }

    fn process_flags(&mut self) -> libc::c_int {
        // SAFETY: no memory involved.
        unsafe {
            if self.no_new_privileges && libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
                return -1;
            }
            match self.parent_death {
                Some(signal) => libc::prctl(libc::PR_SET_PDEATHSIG, signal, 0, 0, 0),
                None => 0,
            }
        }
    }

    fn directory(&mut self) -> libc::c_int {
        // SAFETY: a NUL-terminated string allocated before the fork.
        unsafe { libc::chdir(self.directory.as_ptr()) }
    }

    /// By the system call itself: what the C library's `execvp` finds to be no program it hands to a shell, which then
    /// fails with a status as if the program had run. Returns only when it failed.
    fn exec(&mut self) -> libc::c_int {
        // SAFETY: NUL-terminated texts and null-terminated lists, prepared before the fork and alive here.
        unsafe {
            libc::execve(self.program.as_ptr(), self.argv.pointers.as_ptr(), self.env.pointers.as_ptr())
        }
    }

    /// A parent that died before the parent-death signal was set will send none.
    fn parent_lives(&mut self) -> libc::c_int {
        // SAFETY: no memory involved.
        unsafe {
            if libc::getppid() == self.parent {
                return 0;
            }
            *libc::__errno_location() = libc::ESRCH;
        }
        -1
    }
}
