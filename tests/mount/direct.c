// Writes a text to a file through an io_uring direct descriptor, which is in no descriptor table: open, write, close.
// `direct PATH TEXT [killed | registered]`; killed: by SIGKILL before the close; registered: the same through a file that
// was a descriptor, and closed as one, before the write. Without words it only tells, by exit code 77, that
// there is no io_uring.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static struct io_uring_params params;
static struct io_uring_sqe *requests;
static unsigned char *submitted, *completed;
static int ring;

static unsigned *at(unsigned char *base, unsigned offset) { return (unsigned *)(base + offset); }

// One request from start to end.
static void ask(const char *what, struct io_uring_sqe request) {
  unsigned tail = *at(submitted, params.sq_off.tail);
  unsigned slot = tail & *at(submitted, params.sq_off.ring_mask);
  requests[slot] = request;
  at(submitted, params.sq_off.array)[slot] = slot;
  __atomic_store_n(at(submitted, params.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
  if (syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0) {
    perror("io_uring_enter");
    exit(1);
  }
  unsigned head = *at(completed, params.cq_off.head);
  struct io_uring_cqe *answers = (void *)(completed + params.cq_off.cqes);
  int result = answers[head & *at(completed, params.cq_off.ring_mask)].res;
  __atomic_store_n(at(completed, params.cq_off.head), head + 1, __ATOMIC_RELEASE);
  if (result < 0) {
    fprintf(stderr, "%s: %s\n", what, strerror(-result));
    exit(1);
  }
}

static void *map(size_t bytes, off_t what) {
  return mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, what);
}

int main(int count, char **words) {
  ring = syscall(SYS_io_uring_setup, 8, &params);
  if (ring < 0) return 77;
  submitted = map(params.sq_off.array + params.sq_entries * sizeof(unsigned), IORING_OFF_SQ_RING);
  completed = map(params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe), IORING_OFF_CQ_RING);
  requests = map(params.sq_entries * sizeof(*requests), IORING_OFF_SQES);
  int free_slot = -1;
  if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, &free_slot, 1) < 0) return 77;
  if (count < 3) return 0;

  struct io_uring_sqe request = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .file_index = 1, .len = 0644};
  request.addr = (unsigned long)words[1];
  request.open_flags = O_WRONLY | O_CREAT | O_TRUNC;
  if (count > 3 && !strcmp(words[3], "registered")) {
    int file = open(words[1], request.open_flags, 0644);
    struct io_uring_files_update update = {.fds = (unsigned long)&file};
    if (syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES_UPDATE, &update, 1) < 0 || close(file)) {
      perror("register");
      exit(1);
    }
  } else {
    ask("open", request);
  }
  request = (struct io_uring_sqe){.opcode = IORING_OP_WRITE, .fd = 0, .flags = IOSQE_FIXED_FILE};
  request.addr = (unsigned long)words[2];
  request.len = strlen(words[2]);
  ask("write", request);
  if (count > 3) raise(SIGKILL);
  request = (struct io_uring_sqe){.opcode = IORING_OP_CLOSE, .file_index = 1};
  ask("close", request);
  puts("closed");
  fflush(stdout);
  getchar();
  return 0;
}
