/* Makes one system call, or the trees and races that no shell can make, and prints "ok" or the name of the error: probe CALL. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* deep LEVELS LENGTH: directories in one another, each with a name of so many bytes. */
static long deep(long levels, long length) {
  char name[256] = {0};
  memset(name, 'd', length);
  for (; levels > 0; levels--)
    if (mkdir(name, 0755) < 0 || chdir(name) < 0) return -1;
  return 0;
}

/* nest LEVELS: cgroups in one another with the longest names; it moves into the last one and stays there. */
static long nest(long levels) {
  if (deep(levels, 255) < 0) return -1;
  int file = open("cgroup.procs", O_WRONLY);
  /* A cpuset without processors takes none. */
  if (file < 0 || (write(file, "0", 1) < 0 && errno != ENOSPC)) return -1;
  puts("ok");
  fflush(stdout);
  for (;;) pause();
}

/* many COUNT LENGTH: so many empty files with names of so many bytes. */
static long many(long count, long length) {
  char name[256];
  for (; count > 0; count--) {
    snprintf(name, sizeof name, "%0*ld", (int)length, count);
    int file = open(name, O_CREAT | O_WRONLY, 0644);
    if (file < 0 || close(file) < 0) return -1;
  }
  return 0;
}

/* swap ONE OTHER: exchanges two names until it is killed. */
static long swap(const char *one, const char *other) {
  while (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) == 0) {
  }
  return -1;
}

int main(int count, char **arguments) {
  const char *call = count > 1 ? arguments[1] : "";
  long result = -1;
  errno = EINVAL;
  if (!strcmp(call, "alg")) result = socket(AF_ALG, SOCK_SEQPACKET, 0);
  if (!strcmp(call, "vsock")) result = socket(AF_VSOCK, SOCK_STREAM, 0);
  if (!strcmp(call, "inet")) result = socket(AF_INET, SOCK_STREAM, 0);
  if (!strcmp(call, "userns")) result = unshare(CLONE_NEWUSER);
  if (!strcmp(call, "keyctl")) result = syscall(SYS_keyctl, 0, -3, 1);
  if (!strcmp(call, "deep")) result = deep(atol(arguments[2]), atol(arguments[3]));
  if (!strcmp(call, "nest")) result = nest(atol(arguments[2]));
  if (!strcmp(call, "many")) result = many(atol(arguments[2]), atol(arguments[3]));
  if (!strcmp(call, "swap")) result = swap(arguments[2], arguments[3]);
  if (!strcmp(call, "write")) result = open(arguments[2], O_WRONLY);
  puts(result >= 0 ? "ok" : strerrorname_np(errno));
  return 0;
}
