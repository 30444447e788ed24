/* Looks for what a container should not reach: spy steal|alter|keyring|key|patient|unfilter, see main. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

static int null_device(const struct stat *one) { return S_ISCHR(one->st_mode) && one->st_rdev == makedev(1, 3); }

/* Whether a descriptor is one that a child may have before its exec: a pipe, a terminal, its report channel, or a null
 * device that is not the host's. */
static int harmless(int fd, dev_t device, ino_t inode) {
  struct stat found;
  int type = 0, listening = 0;
  socklen_t length = sizeof type;
  struct sockaddr_storage name;
  socklen_t named = sizeof name;
  if (fstat(fd, &found)) return 1;
  if (S_ISFIFO(found.st_mode)) return 1;
  if (S_ISCHR(found.st_mode) && major(found.st_rdev) >= 136 && major(found.st_rdev) < 144) return 1;
  if (null_device(&found)) return found.st_dev != device || found.st_ino != inode;
  if (!S_ISSOCK(found.st_mode)) return 0;
  getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
  length = sizeof listening;
  getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length);
  getsockname(fd, (struct sockaddr *)&name, &named);
  return type == SOCK_SEQPACKET && !listening && named <= sizeof name.ss_family;
}

static void take(int pid, int pidfd, dev_t device, ino_t inode) {
  char link[64], target[256];
  for (int number = 0; number < 80; number++) {
    int fd = syscall(SYS_pidfd_getfd, pidfd, number, 0);
    if (fd < 0) continue;
    if (!harmless(fd, device, inode)) {
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t size = readlink(link, target, sizeof target - 1);
      target[size < 0 ? 0 : size] = 0;
      printf("took %d of %d: %s\n", number, pid, target);
    }
    close(fd);
  }
}

static unsigned long long field(const char *of, const char *name, int base) {
  char path[64], line[256];
  unsigned long long value = 0;
  snprintf(path, sizeof path, "/proc/%s/status", of);
  FILE *file = fopen(path, "re");
  if (!file) return 0;
  while (fgets(line, sizeof line, file))
    if (!strncmp(line, name, strlen(name))) value = strtoull(line + strlen(name), NULL, base);
  fclose(file);
  return value;
}

/* Stops a process where it is, and looks at what it may do and has open. */
static void seize(int pid, int pidfd, dev_t device, ino_t inode) {
  char name[16];
  int status;
  if (ptrace(PTRACE_SEIZE, pid, 0, 0)) return;
  if (!ptrace(PTRACE_INTERRUPT, pid, 0, 0) && waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
    snprintf(name, sizeof name, "%d", pid);
    unsigned long long more = field(name, "CapPrm:", 16) & ~field("self", "CapPrm:", 16);
    if (more) printf("took capabilities of %d: %llx\n", pid, more);
    if (field("self", "Seccomp:", 10) == 2 && field(name, "Seccomp:", 10) != 2) printf("took %d before its filter\n", pid);
    take(pid, pidfd, device, inode);
    ptrace(PTRACE_DETACH, pid, 0, 0);
  }
}

/* The last pid that was given in this namespace. */
static int newest(int loadavg) {
  char text[128];
  ssize_t size = pread(loadavg, text, sizeof text - 1, 0);
  text[size < 0 ? 0 : size] = 0;
  char *last = strrchr(text, ' ');
  return last ? atoi(last) : 0;
}

/* Meets new processes of its pid namespace until /enough is there: "took …" for each thing that should not be
 * had, then "met" and how many there were. */
static int steal(dev_t device, ino_t inode) {
  int last = getpid(), met = 0, loadavg = open("/proc/loadavg", O_RDONLY | O_CLOEXEC);
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("lies in wait");
  for (unsigned turn = 0; turn % 4096 || access("/enough", F_OK); turn++) {
    int pidfd = syscall(SYS_pidfd_open, last + 1, 0);
    if (pidfd < 0) {
      // Processes that came and went meanwhile are missed.
      if (turn % 8 == 0 && newest(loadavg) > last) last = newest(loadavg) - 1;
      continue;
    }
    last++;
    if (++met % 2) seize(last, pidfd, device, inode);
    else for (int times = 0; times < 4; times++) take(last, pidfd, device, inode);
    close(pidfd);
    while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) {}
  }
  printf("met %d\n", met);
  return 0;
}

/* File systems of the host, as the decimal st_dev of each, with a comma before and after. */
static const char *host_devices;
static unsigned long reached;

static int is_the_hosts(const struct stat *one) {
  char device[32];
  snprintf(device, sizeof device, ",%llu,", (unsigned long long)one->st_dev);
  return strstr(host_devices, device) != NULL;
}

/* Tries to change an inode to what it is already, and its times to now: "changed HOW PATH" for each that works. */
static void alter(const char *path, const struct stat *is, int flag) {
  struct timespec times[2] = {is->st_atim, is->st_mtim};
  char made[4200];
  int fd;
  reached++;
  if (flag == 0 && !chmod(path, is->st_mode & 07777)) printf("changed mode of %s\n", path);
  if (!fchownat(AT_FDCWD, path, is->st_uid, is->st_gid, flag)) printf("changed owner of %s\n", path);
  if (!utimensat(AT_FDCWD, path, times, flag) || !utimensat(AT_FDCWD, path, NULL, flag)) printf("changed times of %s\n", path);
  if (flag == 0 && !setxattr(path, "user.slipway", "", 0, 0)) printf("changed attributes of %s\n", path);
  if (S_ISREG(is->st_mode) && (fd = open(path, O_WRONLY | O_NONBLOCK)) >= 0) printf("changed bytes of %s\n", path), close(fd);
  if (S_ISDIR(is->st_mode)) {
    snprintf(made, sizeof made, "%s/.slipway-probe", path);
    if ((fd = open(made, O_WRONLY | O_CREAT | O_EXCL, 0600)) >= 0) printf("changed entries of %s\n", path), close(fd), unlink(made);
  }
}

static int visit(const char *path, const struct stat *is, int kind, struct FTW *where) {
  (void)where;
  if (kind != FTW_NS && is_the_hosts(is)) alter(path, is, S_ISLNK(is->st_mode) ? AT_SYMLINK_NOFOLLOW : 0);
  return 0;
}

/* Tries to change every inode of these file systems that a path or a descriptor leads to. */
static int alter_all(const char *devices) {
  const char *directories[] = {"/proc/self/fd", "/proc/1/fd"};
  host_devices = devices;
  nftw("/", visit, 32, FTW_PHYS);
  for (int one = 0; one < 2; one++) {
    for (int number = 0; number < 64; number++) {
      char path[64];
      struct stat is;
      snprintf(path, sizeof path, "%s/%d", directories[one], number);
      if (!stat(path, &is) && is_the_hosts(&is)) alter(path, &is, 0);
    }
  }
  printf("reached %lu\n", reached);
  return 0;
}

/* Executes a command in a new session keyring that holds one key. */
static int keyed(const char *name, char **command) {
  if (syscall(SYS_keyctl, 1, NULL) < 0 || syscall(SYS_add_key, "user", name, "secret", 6, -3) < 0) return perror("keyed"), 1;
  execvp(command[0], command);
  return perror(command[0]), 1;
}

/* Asks for a key in the session keyring, and for that keyring's id, until keyctl(2) is not refused any more. */
static int patient(const char *name) {
  long ring;
  while ((ring = syscall(SYS_keyctl, 0, -3, 0)) < 0 && errno == EPERM) usleep(20000);
  long key = syscall(SYS_keyctl, 10, -3, "user", name, 0);
  return printf("key %s ring %ld\n", key >= 0 ? "found" : strerrorname_np(errno), ring) < 0;
}

/* Suspends another process's seccomp filter until that ends, by PTRACE_O_SUSPEND_SECCOMP. */
static int unfilter(pid_t pid) {
  int status;
  if (ptrace(PTRACE_SEIZE, pid, 0, 1L << 21) < 0) return puts(strerrorname_np(errno)), 1;
  while (waitpid(pid, &status, __WALL) == pid && WIFSTOPPED(status)) {
    int is_event = status >> 16 != 0;
    ptrace(PTRACE_CONT, pid, 0, is_event ? 0 : WSTOPSIG(status));
  }
  return 0;
}

int main(int count, char **arguments) {
  const char *call = count > 1 ? arguments[1] : "";
  long result = -1;
  errno = EINVAL;
  if (!strcmp(call, "steal") && count > 3) return steal(strtoull(arguments[2], 0, 10), strtoull(arguments[3], 0, 10));
  if (!strcmp(call, "alter") && count > 2) return alter_all(arguments[2]);
  if (!strcmp(call, "keyed") && count > 3) return keyed(arguments[2], arguments + 3);
  if (!strcmp(call, "patient") && count > 2) return patient(arguments[2]);
  if (!strcmp(call, "unfilter") && count > 2) return unfilter(atoi(arguments[2]));
  if (!strcmp(call, "keyring")) return printf("%ld\n", syscall(SYS_keyctl, 0, -3, 0)) < 0;
  if (!strcmp(call, "key") && count > 2) result = syscall(SYS_keyctl, 10, -3, "user", arguments[2], 0);
  if (!strcmp(call, "mkdir") && count > 2) result = mkdir(arguments[2], 0755);
  puts(result >= 0 ? "ok" : strerrorname_np(errno));
  return 0;
}
