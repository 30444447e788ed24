//! The profile that containers have unless another is asked for: what ordinary programs need, and what their
//! capabilities are for; all else answers `EPERM`.
//!
//! Not in it, among others: `io_uring`, kernel keyrings, `userfaultfd`, new namespaces without `CAP_SYS_ADMIN`,
//! kernel crypto and virtual machine sockets. The i386 call `socketcall` hides the family of a socket behind a pointer
//! where no filter can look, so 32-bit programs have the direct calls only.

use super::table::Machine;
use crate::capabilities::Capabilities;
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

const ENOSYS: u32 = 38;

/// Allowed to everyone, by what they work on.
const ALLOWED: &[&str] = &[
    // Files and directories
    "access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
     fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat \
     fcntl fcntl64 fdatasync flock fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat \
     getcwd getdents getdents64 ioctl lchown lchown32 link linkat _llseek lseek lstat lstat64 mkdir mkdirat mknod \
     mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
     readahead readlink readlinkat readv rename renameat renameat2 rmdir sendfile sendfile64 splice stat stat64 \
     statfs statfs64 statx symlink symlinkat sync sync_file_range sync_file_range2 syncfs tee truncate truncate64 \
     umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev cachestat statmount listmount",
    // Extended attributes
    "fgetxattr flistxattr fremovexattr fsetxattr getxattr lgetxattr listxattr llistxattr lremovexattr lsetxattr \
     removexattr setxattr getxattrat listxattrat removexattrat setxattrat",
    // Waiting for events
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd \
     eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch _newselect pipe pipe2 poll \
     ppoll ppoll_time64 pselect6 pselect6_time64 select signalfd signalfd4 io_cancel io_destroy io_getevents \
     io_pgetevents io_pgetevents_time64 io_setup io_submit",
    // Sockets
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 \
     recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair",
    // Memory
    "brk madvise map_shadow_stack membarrier memfd_create memfd_secret mincore mlock mlock2 mlockall mmap mmap2 \
     mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect remap_file_pages",
    // Processes and threads
    "arch_prctl execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake \
     get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getsid gettid kill modify_ldt pause \
     pidfd_open pidfd_send_signal prctl process_mrelease process_vm_readv process_vm_writev ptrace restart_syscall \
     rseq set_robust_list set_thread_area set_tid_address setpgid setsid tgkill tkill uretprobe vfork wait4 waitid \
     waitpid cacheflush set_tls",
    // Signals
    "rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
     rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack sigaction signal sigpending sigprocmask sigreturn sigsuspend",
    // Identity
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 \
     getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp \
     setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setregid setregid32 setresgid \
     setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    // Time
    "adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 \
     clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete \
     timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime \
     timerfd_gettime64 timerfd_settime timerfd_settime64 times",
    // Limits, priorities, the system
    "getpriority getrandom getrlimit getrusage ioprio_get ioprio_set nice prlimit64 sched_get_priority_max \
     sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
     sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
     setpriority setrlimit sysinfo ugetrlimit uname lsm_get_self_attr lsm_list_modules lsm_set_self_attr",
    // System V and POSIX inter-process communication
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 \
     mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
];

/// Allowed to those who hold a capability.
const ALLOWED_WITH: &[(&str, &str)] = &[
    ("BPF", "bpf"),
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    ("PERFMON", "perf_event_open"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr move_mount \
         open_tree open_tree_attr perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount \
         umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module finit_module init_module"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "ioperm iopl"),
    ("SYS_TIME", "clock_settime clock_settime64 settimeofday stime"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYSLOG", "syslog"),
];

/// `CLONE_NEW*` as they appear in the flags of `clone(2)`.
const NAMESPACES: u64 = 0x7e02_0000;

/// Execution domains of `personality(2)`: Linux, with and without its 2.6 version number or a fixed layout, and asking.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// Families of `socket(2)` as (mask, value): all below 48 but 38 (`AF_ALG`) and 40 (`AF_VSOCK`). The kernel looks at
/// 32 bits of the argument alone, so a test of all 64 could be passed by setting a high one.
const FAMILIES: [(u64, u64); 7] = [
    (0xffff_ffe0, 0),
    (0xffff_fffc, 32),
    (0xffff_fffe, 36),
    (0xffff_ffff, 39),
    (0xffff_ffff, 41),
    (0xffff_fffe, 42),
    (0xffff_fffc, 44),
];

/// The default profile for a process with these capabilities; what its bounding set holds counts.
pub fn default_profile(capabilities: &Capabilities, machine: Machine) -> LinuxSeccomp {
    let mut rules: Vec<LinuxSyscall> = vec![allow(ALLOWED, &[])];
    for (capability, calls) in ALLOWED_WITH {
        if capabilities.bounding.has(capability) {
            rules.push(allow(&[calls], &[]));
        }
    }
    if !capabilities.bounding.has("SYS_ADMIN") {
        rules.push(allow(&["clone"], &[masked(NAMESPACES, 0)]));
        // Its flags are behind a pointer; C libraries fall back to clone(2).
        rules.push(refuse("clone3", ENOSYS));
    }
    for persona in PERSONALITIES {
        rules.push(allow(&["personality"], &[argument(LinuxSeccompOperator::ScmpCmpEq, persona)]));
    }
    for (mask, family) in FAMILIES {
        rules.push(allow(&["socket"], &[masked(mask, family)]));
    }
    let mut profile = LinuxSeccomp::default();
    profile.set_default_action(LinuxSeccompAction::ScmpActErrno);
    profile.set_default_errno_ret(Some(1));
    profile.set_architectures(Some(architectures(machine)));
    profile.set_syscalls(Some(rules));
    profile
}

fn architectures(machine: Machine) -> Vec<Arch> {
    match machine {
        Machine::X86_64 => vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86],
        Machine::Aarch64 => vec![Arch::ScmpArchAarch64],
    }
}

fn allow(names: &[&str], arguments: &[LinuxSeccompArg]) -> LinuxSyscall {
    let mut rule = LinuxSyscall::default();
    rule.set_names(
        names.iter().flat_map(|names| names.split_ascii_whitespace()).map(str::to_owned).collect(),
    );
    rule.set_action(LinuxSeccompAction::ScmpActAllow);
    rule.set_args((!arguments.is_empty()).then(|| arguments.to_vec()));
    rule
}

fn refuse(name: &str, errno: u32) -> LinuxSyscall {
    let mut rule = allow(&[name], &[]);
    rule.set_action(LinuxSeccompAction::ScmpActErrno);
    rule.set_errno_ret(Some(errno));
    rule
}

fn argument(operator: LinuxSeccompOperator, value: u64) -> LinuxSeccompArg {
    finished(LinuxSeccompArgBuilder::default().index(0usize).op(operator).value(value))
}

fn masked(mask: u64, value: u64) -> LinuxSeccompArg {
    let operator = LinuxSeccompOperator::ScmpCmpMaskedEq;
    finished(LinuxSeccompArgBuilder::default().index(0usize).op(operator).value(mask).value_two(value))
}

/// The builder fails for a missing field only, and every field has a default.
fn finished(builder: LinuxSeccompArgBuilder) -> LinuxSeccompArg {
    builder.build().unwrap_or_default()
}
