//! A way past a container's seccomp filter for the few calls that come between it and exec.
//!
//! A process that joins a pid namespace is confined before it can be seen there, its filter included: a container that
//! may trace would else take over a process that may do more than it. The calls that are left then (the clone into the
//! namespace, a session, a limit of processes, word to the monitor) a filter may forbid, and one that forbids everything its program does not
//! call does. So the filter begins with instructions that let exactly these calls pass when their sixth argument, which
//! the kernel does not look at, is a random number of this launch. It is in no memory of the program, and who reads it
//! from the child while it lasts can make a filtered process fork, begin a session, limit itself or send a packet, no more. Other
//! calls are decided by their number before any argument is loaded, so that the kernel's cache of calls that are always
//! allowed (Linux 5.11) works as before.

use libc::sock_filter;

/// `BPF_MAXINSNS`: the kernel takes no longer filter.
const LONGEST: usize = 4096;
const LOAD: u16 = 0x20;
const EQUALS: u16 = 0x15;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
/// Offsets in `struct seccomp_data`, of the lower halves where a number has two.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;
const SECOND: u32 = 24;
const SIXTH: u32 = 56;

/// `AUDIT_ARCH_*` of this machine; none where filters are not made for it.
const NATIVE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// The filter with the way before it. One that has no room for it stays as it is.
pub(super) fn open(filter: Vec<sock_filter>, pass: u64) -> Vec<sock_filter> {
    let Some(native) = NATIVE else { return filter };
    let way = way(native, pass);
    if filter.len() + way.len() > LONGEST { filter } else { way.into_iter().chain(filter).collect() }
}

/// The instructions. A jump counts from the instruction behind it; the container's filter begins at 20.
fn way(native: u32, pass: u64) -> [sock_filter; 20] {
    let load = |at| sock_filter { code: LOAD, jt: 0, jf: 0, k: at };
    let equals = |k, jt, jf| sock_filter { code: EQUALS, jt, jf, k };
    let number = |call: i64| u32::try_from(call).unwrap_or(u32::MAX);
    let half = |shift: u32| u32::try_from(pass >> shift & 0xffff_ffff).unwrap_or(0);
    let parent = libc::CLONE_PARENT.cast_unsigned();
    let terminal = u32::try_from(libc::TIOCSCTTY).unwrap_or(u32::MAX);
    [
        load(ARCHITECTURE),
        equals(native, 0, 18),
        load(NUMBER),
        equals(number(libc::SYS_clone), 5, 0),
        equals(number(libc::SYS_ioctl), 6, 0),
        equals(number(libc::SYS_prlimit64), 7, 0),
        equals(number(libc::SYS_setsid), 8, 0),
        equals(number(libc::SYS_recvmmsg), 7, 0),
        equals(number(libc::SYS_sendmmsg), 6, 11),
        load(FIRST),
        equals(parent, 4, 9),
        load(SECOND),
        equals(terminal, 2, 7),
        // Of itself.
        load(FIRST),
        equals(0, 0, 5),
        load(SIXTH),
        equals(half(0), 0, 3),
        load(SIXTH + 4),
        equals(half(32), 0, 1),
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASS: u64 = 0x1234_5678_9abc_def0;
    const REFUSE: u32 = 0x0005_0001;

    /// Runs a filter on a call by its number and arguments.
    fn decide(filter: &[sock_filter], architecture: u32, call: i64, arguments: [u64; 6]) -> u32 {
        let number = u32::try_from(call).unwrap();
        let mut data = [number.to_ne_bytes(), architecture.to_ne_bytes(), [0; 4], [0; 4]].concat();
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let (mut at, mut value) = (0, 0);
        loop {
            let one = filter[at];
            at += 1;
            match one.code {
                LOAD => value = u32::from_le_bytes(data[one.k as usize..][..4].try_into().unwrap()),
                EQUALS => at += usize::from(if value == one.k { one.jt } else { one.jf }),
                RETURN => return one.k,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn the_calls_before_exec_pass_with_the_word_and_no_others() {
        let Some(native) = NATIVE else { return };
        let strict = vec![sock_filter { code: RETURN, jt: 0, jf: 0, k: REFUSE }];
        let filter = open(strict, PASS);
        let parent = u64::from(libc::CLONE_PARENT.cast_unsigned());
        let calls = [
            (libc::SYS_clone, [parent, 0]),
            (libc::SYS_ioctl, [0, libc::TIOCSCTTY]),
            (libc::SYS_prlimit64, [0, 6]),
            (libc::SYS_setsid, [0, 0]),
            (libc::SYS_recvmmsg, [0, 0]),
            (libc::SYS_sendmmsg, [0, 0]),
        ];
        for (call, [first, second]) in calls {
            let of = |pass| decide(&filter, native, call, [first, second, 0, 0, 0, pass]);
            assert_eq!(of(PASS), ALLOW, "{call}");
            for other in [0, PASS ^ 1, PASS ^ (1 << 32), PASS & 0xffff_ffff] {
                assert_eq!(of(other), REFUSE, "{call} {other:#x}");
            }
            assert_eq!(decide(&filter, !native, call, [first, second, 0, 0, 0, PASS]), REFUSE);
        }
        let new_user = u64::from(libc::CLONE_NEWUSER.cast_unsigned());
        for (call, [first, second]) in [
            (libc::SYS_clone, [parent | new_user, 0]),
            (libc::SYS_ioctl, [0, libc::TIOCSTI]),
            (libc::SYS_prlimit64, [1, 6]),
            (libc::SYS_execve, [0, 0]),
            (libc::SYS_mount, [0, 0]),
        ] {
            assert_eq!(decide(&filter, native, call, [first, second, 0, 0, 0, PASS]), REFUSE, "{call}");
        }
    }

    #[test]
    fn a_filter_of_the_greatest_length_stays_as_it_is() {
        let long = vec![sock_filter { code: RETURN, jt: 0, jf: 0, k: REFUSE }; LONGEST];
        assert_eq!(open(long, PASS).len(), LONGEST);
    }
}
