/* Kills the process before its KILL_AT-th operation that changes files, counted from 1. Preloaded into the program under attack.
   Operations on the standard streams are not counted. With COUNT_TO the number of all operations is written there at the end. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>

static _Atomic long made;

static void before(void) {
  const char *at = getenv("KILL_AT");
  if (++made == (at ? atol(at) : -1)) kill(getpid(), SIGKILL);
}

__attribute__((destructor)) static void count(void) {
  const char *path = getenv("COUNT_TO");
  if (!path) return;
  FILE *file = fopen(path, "w");
  if (file) fprintf(file, "%ld", (long)made), fclose(file);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define CHANGES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC))
#define MODE(flags) \
  mode_t mode = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }

int open(const char *path, int flags, ...) { MODE(flags) if (CHANGES(flags)) before(); return REAL(open)(path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) if (CHANGES(flags)) before(); return REAL(open64)(path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) if (CHANGES(flags)) before(); return REAL(openat)(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) if (CHANGES(flags)) before(); return REAL(openat64)(at, path, flags, mode); }
ssize_t write(int file, const void *bytes, size_t count) { if (file > 2) before(); return REAL(write)(file, bytes, count); }
int fsync(int file) { before(); return REAL(fsync)(file); }
int ftruncate(int file, off_t length) { before(); return REAL(ftruncate)(file, length); }
int ftruncate64(int file, off64_t length) { before(); return REAL(ftruncate64)(file, length); }
int fchmod(int file, mode_t mode) { before(); return REAL(fchmod)(file, mode); }
int rename(const char *from, const char *to) { before(); return REAL(rename)(from, to); }
int link(const char *from, const char *to) { before(); return REAL(link)(from, to); }
int linkat(int a, const char *from, int b, const char *to, int flags) { before(); return REAL(linkat)(a, from, b, to, flags); }
int unlink(const char *path) { before(); return REAL(unlink)(path); }
int unlinkat(int at, const char *path, int flags) { before(); return REAL(unlinkat)(at, path, flags); }
int mkdir(const char *path, mode_t mode) { before(); return REAL(mkdir)(path, mode); }
int rmdir(const char *path) { before(); return REAL(rmdir)(path); }
