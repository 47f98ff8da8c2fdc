/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Test harness: include it in one file of a program, write TEST(name) { ... }
 * and the program prints TAP.
 *
 * Every test runs in a process group of its own with a time limit, so a hang
 * or a crash is a failure of that test and not the end of the run. A failed
 * EXPECT lets the test go on, a failed ASSERT ends it; both may be used in any
 * thread and any child of the test.
 *
 *	PROGRAM [-l] [NAME...]		list the tests; run only those named
 *
 * RMEM_TIMEOUT_SCALE=N multiplies all limits, for slow machines.
 */
#ifndef SELFTEST_HARNESS_H
#define SELFTEST_HARNESS_H

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define __attr(...) __attribute__((__VA_ARGS__))
#define __printf(f, a) __attr(format(printf, f, a))
#define __aligned(n) __attr(aligned(n))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#define HARNESS_SKIP 4 /* exit status, as in kselftest */

struct harness_test {
	const char *name;
	void (*fn)(void);
	int seconds;
	struct harness_test *next;
};

/* What all processes of the running test share. */
struct harness_state {
	int failed;
	char skip[160];
};

static struct harness_test *harness_tests;
static struct harness_test **harness_last = &harness_tests;
static struct harness_state *harness_state;
static char harness_context[64];

#define TEST_SECONDS(id, limit)						\
	static void test_##id(void);					\
	static struct harness_test harness_##id = {			\
		#id, test_##id, limit, NULL				\
	};								\
	__attribute__((constructor)) static void harness_add_##id(void)	\
	{								\
		*harness_last = &harness_##id;				\
		harness_last = &harness_##id.next;			\
	}								\
	static void test_##id(void)
#define TEST(id) TEST_SECONDS(id, 60)

static inline int harness_scale(void)
{
	const char *s = getenv("RMEM_TIMEOUT_SCALE");

	return s && atoi(s) > 0 ? atoi(s) : 1;
}

static inline long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Less than a second. */
static inline void nap_ms(int ms)
{
	nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL);
}

static inline void nap(void)
{
	nap_ms(1);
}

/* Looking every millisecond, for long, keeps a slow machine from what is waited for. */
static inline void nap_since(long long begin)
{
	long long ms = 1 + (now_ms() - begin) / 16;

	nap_ms(ms < 20 ? ms : 20);
}

__printf(1, 2)
static inline void diag(const char *fmt, ...);

/* Of a test's random numbers: RMEM_SEED repeats a run. */
static inline unsigned int harness_seed(void)
{
	const char *s = getenv("RMEM_SEED");
	unsigned int seed = s ? (unsigned int)strtoul(s, NULL, 10) :
				(unsigned int)time(NULL);

	diag("RMEM_SEED=%u", seed);
	return seed;
}

/* One diagnostic line; whole, whatever other processes print. */
__printf(1, 2)
static inline void diag(const char *fmt, ...)
{
	char line[1024] = "# ";
	va_list ap;
	size_t n;

	va_start(ap, fmt);
	vsnprintf(line + 2, sizeof(line) - 3, fmt, ap);
	va_end(ap);
	n = strlen(line);
	line[n] = '\n';
	if (write(STDOUT_FILENO, line, n + 1) < 0)
		_exit(1);
}

/* Which of several similar cases runs, for the messages of failures. */
__printf(1, 2)
static inline void context(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(harness_context, sizeof(harness_context), fmt, ap);
	va_end(ap);
}

__printf(3, 4)
static inline void harness_fail(const char *file, int line, const char *fmt, ...)
{
	char text[700];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	__atomic_store_n(&harness_state->failed, 1, __ATOMIC_SEQ_CST);
	diag("%s:%d: %s%s%s", file, line, harness_context,
	     *harness_context ? ": " : "", text);
}

#define FAIL(...) harness_fail(__FILE__, __LINE__, __VA_ARGS__)

#define SKIP(...)							\
	do {								\
		snprintf(harness_state->skip, sizeof(harness_state->skip), \
			 __VA_ARGS__);					\
		_exit(HARNESS_SKIP);					\
	} while (0)

/* A failed ASSERT ends the process it is in. */
#define ASSERTED(ok)							\
	do {								\
		if (!(ok))						\
			_exit(1);					\
	} while (0)

/* The text is taken before macros in the argument are expanded. */
#define HARNESS_TRUE(cond, text)					\
	({								\
		bool ok_ = !!(cond);					\
									\
		if (!ok_)						\
			FAIL("not true: %s", text);			\
		ok_;							\
	})
#define EXPECT(cond) HARNESS_TRUE(cond, #cond)
#define ASSERT(cond) ASSERTED(HARNESS_TRUE(cond, #cond))

#define HARNESS_OP(seen, text, op, want)				\
	({								\
		long long seen_ = (long long)(seen);			\
		long long want_ = (long long)(want);			\
		bool ok_ = seen_ op want_;				\
									\
		if (!ok_)						\
			FAIL("%s is %lld, want " #op " %lld", text,	\
			     seen_, want_);				\
		ok_;							\
	})
#define EXPECT_EQ(seen, want) HARNESS_OP(seen, #seen, ==, want)
#define EXPECT_NE(seen, want) HARNESS_OP(seen, #seen, !=, want)
#define EXPECT_GE(seen, want) HARNESS_OP(seen, #seen, >=, want)
#define EXPECT_GT(seen, want) HARNESS_OP(seen, #seen, >, want)
#define EXPECT_LE(seen, want) HARNESS_OP(seen, #seen, <=, want)
#define ASSERT_EQ(seen, want) ASSERTED(HARNESS_OP(seen, #seen, ==, want))
#define ASSERT_GE(seen, want) ASSERTED(HARNESS_OP(seen, #seen, >=, want))

#define EXPECT_STREQ(seen, want)					\
	({								\
		const char *seen_ = (seen), *want_ = (want);		\
		bool ok_ = !strcmp(seen_, want_);			\
									\
		if (!ok_)						\
			FAIL("%s is \"%s\", want \"%s\"", #seen, seen_,	\
			     want_);					\
		ok_;							\
	})

/* A system call's result in one number: what it returned, or -errno. */
#define SYS(call)							\
	({								\
		long long sys_ = (long long)(call);			\
									\
		sys_ == -1 ? -errno : sys_;				\
	})

static inline const char *harness_ret(char *buf, size_t size, long long ret)
{
	const char *name = ret < 0 && ret > -4096 ?
			   strerrorname_np((int)-ret) : NULL;

	if (name)
		snprintf(buf, size, "-%s", name);
	else
		snprintf(buf, size, "%lld", ret);
	return buf;
}

/* For results of the kind n or -errno. */
#define HARNESS_RET(call, text, want)					\
	({								\
		long long seen_ = (long long)(call);			\
		long long want_ = (long long)(want);			\
		char s_[32], w_[32];					\
		bool ok_ = seen_ == want_;				\
									\
		if (!ok_)						\
			FAIL("%s gave %s, want %s", text,		\
			     harness_ret(s_, sizeof(s_), seen_),	\
			     harness_ret(w_, sizeof(w_), want_));	\
		ok_;							\
	})
#define EXPECT_RET(call, want) HARNESS_RET(call, #call, want)
#define ASSERT_RET(call, want) ASSERTED(HARNESS_RET(call, #call, want))

/* Result >= 0, and it is the macro's value. */
#define ASSERT_OK(call)							\
	({								\
		long long okr_ = (long long)(call);			\
		char r_[32];						\
									\
		if (okr_ < 0) {						\
			FAIL("%s gave %s", #call,			\
			     harness_ret(r_, sizeof(r_), okr_));	\
			_exit(1);					\
		}							\
		okr_;							\
	})

/* Until the condition holds, at most @ms. */
#define POLL_MS(cond, ms)						\
	({								\
		long long begin_ = now_ms();				\
		long long end_ = begin_ + (long long)(ms) * harness_scale(); \
		bool is_;						\
									\
		while (!(is_ = !!(cond)) && now_ms() < end_)		\
			nap_since(begin_);				\
		is_;							\
	})
/* While the condition holds, at most @ms. */
#define STAYS_MS(cond, ms) (!POLL_MS(!(cond), ms))

#define HARNESS_SOON(cond, text)					\
	({								\
		bool ok_ = POLL_MS(cond, 20000);			\
									\
		if (!ok_)						\
			FAIL("never true: %s", text);			\
		ok_;							\
	})
#define EXPECT_SOON(cond) HARNESS_SOON(cond, #cond)
#define ASSERT_SOON(cond) ASSERTED(HARNESS_SOON(cond, #cond))

/* What to do when all processes of a test are gone: miniserve.c. */
void harness_after(void);
/* Until the child has ended, at most @ms: region.c. */
void await_end(pid_t pid, int ms);

/* Where every task of process group @group is, after a time-out. */
static inline void harness_stacks(pid_t group)
{
	char path[300], text[2048];
	struct dirent *d, *t;
	DIR *proc = opendir("/proc"), *tasks;
	int pid, pgrp, fd;
	char state;
	ssize_t n;
	char *s;

	while (proc && (d = readdir(proc))) {
		pid = atoi(d->d_name);
		if (pid <= 0 || getpgid(pid) != group)
			continue;
		snprintf(path, sizeof(path), "/proc/%d/task", pid);
		tasks = opendir(path);
		while (tasks && (t = readdir(tasks))) {
			if (!isdigit(t->d_name[0]))
				continue;
			snprintf(path, sizeof(path), "/proc/%d/task/%s/stat",
				 pid, t->d_name);
			fd = open(path, O_RDONLY);
			n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
			close(fd);
			text[n > 0 ? n : 0] = 0;
			s = strrchr(text, ')');
			if (!s || sscanf(s, ") %c %*d %d", &state, &pgrp) != 2)
				continue;
			diag("task %s state %c", t->d_name, state);
			snprintf(path, sizeof(path), "/proc/%d/task/%s/stack",
				 pid, t->d_name);
			fd = open(path, O_RDONLY);
			n = fd < 0 ? 0 : read(fd, text, sizeof(text) - 1);
			close(fd);
			text[n > 0 ? n : 0] = 0;
			for (s = strtok(text, "\n"); s; s = strtok(NULL, "\n"))
				diag("  %s", s);
		}
		if (tasks)
			closedir(tasks);
	}
	if (proc)
		closedir(proc);
}

/* Marks the kernel log, so that its messages find their test. */
static inline void harness_mark(const char *name)
{
	int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	char line[128];
	int n;

	n = snprintf(line, sizeof(line), "selftest: %s: %s\n",
		     program_invocation_short_name, name);
	/* Not everybody may; the tests do not depend on it. */
	if (fd >= 0 && write(fd, line, n) < n)
		diag("kernel log: %s", strerror(errno));
	close(fd);
}

static inline bool harness_run(const struct harness_test *t)
{
	long long end;
	bool timeout = false, left = false;
	int status = 0;
	pid_t pid;

	memset(harness_state, 0, sizeof(*harness_state));
	harness_mark(t->name);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		t->fn();
		_exit(0);
	}
	setpgid(pid, pid);
	end = now_ms() + t->seconds * 1000LL * harness_scale();
	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (now_ms() > end) {
			timeout = true;
			diag("%s: no end after %d s", t->name,
			     t->seconds * harness_scale());
			harness_stacks(pid);
			break;
		}
		await_end(pid, 1000);
	}
	/*
	 * All of them, down to the last grandchild: orphans come to us, and
	 * what they have open would disturb the next test.
	 */
	kill(-pid, SIGKILL);
	end = now_ms() + 40000LL * harness_scale();
	while (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD) {
		if (now_ms() > end) {
			diag("%s: tasks survive SIGKILL", t->name);
			harness_stacks(pid);
			left = true;
			break;
		}
		nap();
	}
	harness_after();
	if (timeout || left)
		return false;
	if (WIFSIGNALED(status)) {
		diag("%s: killed by signal %d (%s)", t->name, WTERMSIG(status),
		     strsignal(WTERMSIG(status)));
		return false;
	}
	return !harness_state->failed && (WEXITSTATUS(status) == 0 ||
		WEXITSTATUS(status) == HARNESS_SKIP);
}

int main(int argc, char **argv)
{
	int n = 0, bad = 0, i;
	struct harness_test *t;
	long long begin;
	bool named, ok;

	setvbuf(stdout, NULL, _IOLBF, 0);
	harness_state = mmap(NULL, sizeof(*harness_state), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (harness_state == MAP_FAILED)
		return 1;
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	if (argc > 1 && !strcmp(argv[1], "-l")) {
		for (t = harness_tests; t; t = t->next)
			puts(t->name);
		return 0;
	}
	for (t = harness_tests; t; t = t->next)
		n++;
	printf("TAP version 13\n1..%d\n", argc > 1 ? argc - 1 : n);
	n = 0;
	for (t = harness_tests; t; t = t->next) {
		named = argc == 1;
		for (i = 1; i < argc; i++)
			named |= !strcmp(argv[i], t->name);
		if (!named)
			continue;
		n++;
		begin = now_ms();
		ok = harness_run(t);
		diag("%s: %lld ms", t->name, now_ms() - begin);
		if (!ok) {
			printf("not ok %d - %s\n", n, t->name);
			bad++;
		} else if (*harness_state->skip) {
			printf("ok %d - %s # SKIP %s\n", n, t->name,
			       harness_state->skip);
		} else {
			printf("ok %d - %s\n", n, t->name);
		}
	}
	return bad || (argc > 1 && n != argc - 1);
}

#endif /* SELFTEST_HARNESS_H */
