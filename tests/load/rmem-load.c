// SPDX-License-Identifier: MIT
/*
 * Puts load on a region and knows what every page has to hold.
 *
 * A page is a function of its number, the writer and a sequence number: two
 * words that say so, a checksum over them, and 509 words derived from it. A
 * page that was torn, zeroed, misplaced or brought back from the past is
 * recognised, whatever bytes it consists of.
 *
 *   make PATH SIZE SEQ        a file of SIZE bytes whose pages have SEQ
 *   check PATH SEQ            every page has SEQ, by read(2)
 *   read PATH SEQ [THREADS]   the same through mmap
 *   write PATH SEQ [THREADS]  stores SEQ in every page through mmap
 *   rewrite PATH SEQ [THREADS] both: every page has SEQ - 1, and now SEQ
 *   peek PATH OFFSET          prints the eight bytes there, through mmap; the
 *                             signal that the load ends in is an exit status
 *                             of 128 + its number, and its address is printed
 *   poke PATH OFFSET VALUE [msync|fsync]
 *                             stores eight bytes through mmap, then syncs; a
 *                             failure of that is the exit status, as errno
 *   pread PATH OFFSET LENGTH, pwrite PATH OFFSET VALUE, fsync PATH,
 *   punch PATH OFFSET LENGTH  the system call; errno as exit status
 *   scan PATH                 touches every page through mmap, in order; prints
 *                             nanoseconds a page
 *   hold PATH                 maps it, reads nothing, says "ready", waits
 *   unmake NAME               takes a region away with whatever is not durable:
 *                             what tests leave behind that fail
 *   run PATH ORACLE PROCESSES THREADS
 *                             random verified load until SIGTERM, see below
 *   progress ORACLE           prints how many operations there were
 *   compare PATH ORACLE [exact]
 *                             a server's file against what the load knows
 *
 * PATH of peek and its like may be NAME@/dev/rmem: attached by ioctl.
 * Random numbers begin with RMEM_SEED.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rmem.h>
#include <linux/rmem_netlink.h>

#define PAGE 4096u
#define WORDS (PAGE / 8)

#define __noreturn __attribute__((noreturn))

static void __noreturn __attribute__((format(printf, 1, 2))) die(const char *format, ...)
{
	va_list list;

	va_start(list, format);
	fprintf(stderr, "rmem-load: ");
	vfprintf(stderr, format, list);
	fprintf(stderr, "\n");
	va_end(list);
	exit(1);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t n = strtoull(text, &end, 0);

	if (!*text || *end)
		die("`%s' is not a number", text);
	return n;
}

/* --- pages ------------------------------------------------------------------ */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

struct stamp {
	uint64_t page;
	uint32_t seq;
	uint32_t writer;
};

static uint64_t checksum(const struct stamp *s)
{
	return mix(s->page * 0x9e3779b97f4a7c15ull ^ mix((uint64_t)s->writer << 32 | s->seq)) | 1;
}

static void page_fill(uint64_t *to, const struct stamp *s)
{
	uint64_t sum = checksum(s);
	unsigned int i;

	to[0] = s->page;
	to[1] = (uint64_t)s->writer << 32 | s->seq;
	to[2] = sum;
	for (i = 3; i < WORDS; i++)
		to[i] = sum * (2 * i + 1);
}

/* What is wrong with the first @bytes of a page; NULL: nothing. */
static const char *page_wrong(const uint64_t *from, uint64_t page, unsigned int bytes,
			      struct stamp *seen)
{
	unsigned int i, words = bytes / 8;
	uint64_t copy[WORDS], sum;

	memcpy(copy, from, bytes);
	seen->page = copy[0];
	seen->seq = (uint32_t)copy[1];
	seen->writer = (uint32_t)(copy[1] >> 32);
	if (words < 3)
		return NULL;
	for (i = 0; i < words && !copy[i]; i++)
		;
	if (i == words)
		return "zero";
	sum = checksum(seen);
	if (copy[2] != sum)
		return "torn (bad checksum)";
	for (i = 3; i < words; i++)
		if (copy[i] != sum * (2 * i + 1))
			return "torn";
	return copy[0] == page ? NULL : "another page's";
}

static void page_expect(const uint64_t *from, uint64_t page, unsigned int bytes, uint32_t seq,
			const char *where)
{
	struct stamp seen;
	const char *wrong = page_wrong(from, page, bytes, &seen);

	if (wrong || (bytes >= 16 && seen.seq != seq))
		die("%s: page %llu is %s: page %llu seq %u writer %u, want seq %u", where,
		    (unsigned long long)page, wrong ? wrong : "of another time",
		    (unsigned long long)seen.page, seen.seq, seen.writer, seq);
}

/* --- files ------------------------------------------------------------------ */

static int open_path(const char *path, int flags)
{
	const char *at = strchr(path, '@');
	struct rmem_ioc_attach attach = { .size = sizeof(attach) };
	int fd = open(at ? at + 1 : path, flags | O_CLOEXEC);

	if (fd < 0) {
		fprintf(stderr, "rmem-load: open %s: %s\n", path, strerror(errno));
		exit(errno);
	}
	if (at) {
		snprintf(attach.name, sizeof(attach.name), "%.*s", (int)(at - path), path);
		if (ioctl(fd, RMEM_IOC_ATTACH, &attach)) {
			fprintf(stderr, "rmem-load: attach %s: %s\n", path, strerror(errno));
			exit(errno);
		}
	}
	return fd;
}

static uint64_t file_size(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);

	if (size < 0)
		die("lseek: %s", strerror(errno));
	return size;
}

static void *map(int fd, uint64_t size, bool writable)
{
	void *p = mmap(NULL, size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	return p;
}

static unsigned int page_bytes(uint64_t size, uint64_t page)
{
	return size - page * PAGE < PAGE ? size - page * PAGE : PAGE;
}

static int cmd_make(const char *verb, char **args, int count)
{
	int fd = open_path(args[0], O_RDWR | O_CREAT | O_TRUNC);
	uint64_t size = number(args[1]), page;
	static uint64_t buffer[256 * WORDS];
	struct stamp s = { .seq = number(args[2]) };
	unsigned int fill = 0;

	for (page = 0; page * PAGE < size; page++) {
		s.page = page;
		page_fill(buffer + fill / 8, &s);
		fill += page_bytes(size, page);
		if (fill < sizeof(buffer) && (page + 1) * PAGE < size)
			continue;
		if (write(fd, buffer, fill) != fill)
			die("%s: %s", args[0], strerror(errno));
		fill = 0;
	}
	return 0;
}

static int cmd_check(const char *verb, char **args, int count)
{
	int fd = open_path(args[0], O_RDONLY);
	uint64_t size = file_size(fd), page = 0;
	uint32_t seq = number(args[1]);
	static uint64_t buffer[256 * WORDS];
	ssize_t n;

	lseek(fd, 0, SEEK_SET);
	while (page * PAGE < size) {
		uint64_t *p = buffer;

		n = pread(fd, buffer, sizeof(buffer), page * PAGE);
		if (n <= 0 || (n % PAGE && page * PAGE + n != size))
			die("%s: read of %zd bytes at page %llu: %s", args[0], n,
			    (unsigned long long)page, strerror(errno));
		for (; n > 0; n -= PAGE, page++, p += WORDS)
			page_expect(p, page, page_bytes(size, page), seq, args[0]);
	}
	return 0;
}

struct pass {
	pthread_t thread;
	const char *path;
	char *map;
	uint64_t size, first, end; /* pages */
	uint32_t seq;
	bool reads, writes;
};

static void *pass_run(void *arg)
{
	struct pass *p = arg;
	uint64_t buffer[WORDS], page;

	for (page = p->first; page < p->end; page++) {
		uint64_t *at = (uint64_t *)(p->map + page * PAGE);
		struct stamp s = { .page = page, .seq = p->seq };

		if (p->reads)
			page_expect(at, page, page_bytes(p->size, page), p->seq - p->writes, p->path);
		if (p->writes) {
			page_fill(buffer, &s);
			memcpy(at, buffer, page_bytes(p->size, page));
		}
	}
	return NULL;
}

static int cmd_pass(const char *verb, char **args, int count)
{
	bool reads = *verb == 'r', writes = strcmp(verb, "read");
	int fd = open_path(args[0], writes ? O_RDWR : O_RDONLY);
	uint64_t size = file_size(fd), pages = (size + PAGE - 1) / PAGE;
	unsigned int threads = count > 2 ? number(args[2]) : 1, i;
	struct pass *p = calloc(threads, sizeof(*p));
	char *at = map(fd, size, writes);

	for (i = 0; i < threads; i++) {
		p[i] = (struct pass){ .path = args[0], .map = at, .size = size, .seq = number(args[1]),
				      .first = pages * i / threads, .end = pages * (i + 1) / threads,
				      .reads = reads, .writes = writes };
		if (pthread_create(&p[i].thread, NULL, pass_run, &p[i]))
			die("no thread");
	}
	for (i = 0; i < threads; i++)
		pthread_join(p[i].thread, NULL);
	return 0;
}

/* --- single accesses -------------------------------------------------------- */

static void on_signal(int signal, siginfo_t *info, void *context)
{
	char text[64];
	int n = snprintf(text, sizeof(text), "signal %d at %p\n", signal, info->si_addr);

	(void)context;
	if (write(STDOUT_FILENO, text, n) < 0)
		_exit(1);
	_exit(128 + signal);
}

static int said(const char *what, bool failed)
{
	int err = errno;

	if (!failed)
		return 0;
	printf("%s: %s\n", what, strerror(err));
	return err;
}

static int cmd_access(const char *verb, char **args, int count)
{
	struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO };
	bool writes = !strcmp(verb, "poke") || !strcmp(verb, "pwrite") || !strcmp(verb, "punch");
	int fd = open_path(args[0], writes ? O_RDWR : O_RDONLY);
	uint64_t offset = count > 1 ? number(args[1]) : 0, value = count > 2 ? number(args[2]) : 0;
	uint64_t size = file_size(fd), start = offset / PAGE * PAGE;
	volatile uint64_t *at;

	if (!strcmp(verb, "fsync"))
		return said("fsync", fsync(fd));
	if (!strcmp(verb, "pwrite"))
		return said("pwrite", pwrite(fd, &value, 8, offset) != 8);
	if (!strcmp(verb, "punch")) {
		struct rmem_ioc_range range = { .size = sizeof(range), .offset = offset, .length = value };

		return said("punch", ioctl(fd, RMEM_IOC_PUNCH, &range));
	}
	if (!strcmp(verb, "pread")) {
		char *buffer = malloc(value);
		ssize_t n = pread(fd, buffer, value, offset);

		if (n < 0)
			return said("pread", true);
		printf("%zd\n", n);
		return 0;
	}
	sigaction(SIGBUS, &action, NULL);
	sigaction(SIGSEGV, &action, NULL);
	at = (uint64_t *)((char *)map(fd, size, writes) + offset);
	if (!writes) {
		printf("0x%llx\n", (unsigned long long)*at);
		return 0;
	}
	*at = value;
	if (count > 3 && !strcmp(args[3], "msync"))
		return said("msync", msync((char *)at - (offset - start), PAGE, MS_SYNC));
	if (count > 3)
		return said("fsync", fsync(fd));
	return 0;
}

static int cmd_scan(const char *verb, char **args, int count)
{
	int fd = open_path(args[0], O_RDONLY);
	uint64_t size = file_size(fd), at;
	volatile char *bytes = map(fd, size, false);
	struct timespec begin, end;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (at = 0; at < size; at += PAGE)
		(void)bytes[at];
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%.0f\n", ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) /
			((size + PAGE - 1) / PAGE));
	return 0;
}

static int cmd_hold(const char *verb, char **args, int count)
{
	int fd = open_path(args[0], O_RDONLY);

	map(fd, file_size(fd), false);
	printf("ready\n");
	fflush(stdout);
	pause();
	return 0;
}

/* --- generic netlink, as much as it takes to unmake a region ------------------ */

struct message {
	struct nlmsghdr nl;
	struct genlmsghdr genl;
	char attributes[4096];
};

static void add(struct message *m, unsigned int type, const void *data, unsigned int bytes)
{
	struct nlattr *a = (struct nlattr *)((char *)m + NLMSG_ALIGN(m->nl.nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + bytes;
	if (bytes)
		memcpy(a + 1, data, bytes);
	m->nl.nlmsg_len = NLMSG_ALIGN(m->nl.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

/* The first answer is in @m afterwards; its errno. */
static int call(int fd, struct message *m)
{
	const struct nlmsgerr *error = (const struct nlmsgerr *)NLMSG_DATA(&m->nl);

	if (send(fd, m, m->nl.nlmsg_len, 0) < 0 || recv(fd, m, sizeof(*m), 0) < 0)
		die("netlink: %s", strerror(errno));
	return m->nl.nlmsg_type == NLMSG_ERROR ? -error->error : 0;
}

static struct message new_message(unsigned int type, unsigned int command, unsigned int flags)
{
	return (struct message){ .nl = { .nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN), .nlmsg_type = type,
					 .nlmsg_flags = NLM_F_REQUEST | flags },
				 .genl = { .cmd = command, .version = 1 } };
}

static int cmd_unmake(const char *verb, char **args, int count)
{
	char path[128];
	struct rmem_ioc_info info = { .size = sizeof(info) };
	struct message m = new_message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 0);
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC), region, control, err;
	struct nlattr *a;
	unsigned int family = 0;

	snprintf(path, sizeof(path), "%s@/dev/rmem", args[0]);
	region = open_path(path, O_RDONLY);
	if (ioctl(region, RMEM_IOC_INFO, &info))
		die("info: %s", strerror(errno));
	close(region);
	control = open_path("/dev/rmem_control", O_RDWR);
	add(&m, CTRL_ATTR_FAMILY_NAME, RMEM_FAMILY_NAME, sizeof(RMEM_FAMILY_NAME));
	if (call(fd, &m))
		die("no family " RMEM_FAMILY_NAME);
	for (a = (void *)m.attributes; (char *)a < (char *)&m + m.nl.nlmsg_len;
	     a = (void *)((char *)a + NLA_ALIGN(a->nla_len)))
		if (a->nla_type == CTRL_ATTR_FAMILY_ID)
			family = *(uint16_t *)(a + 1);
	m = new_message(family, RMEM_CMD_REGION_DEL, NLM_F_ACK);
	add(&m, RMEM_A_REGION_ID, &info.region_id, 4);
	add(&m, RMEM_A_REGION_CONTROL_FD, &control, 4);
	add(&m, RMEM_A_REGION_FORCE, NULL, 0);
	err = call(fd, &m);
	if (err)
		fprintf(stderr, "rmem-load: unmake %s: %s\n", args[0], strerror(err));
	return err;
}

/* --- the random load -------------------------------------------------------- */

/*
 * Shared by all processes, in a file. Per page: what was last written and what
 * was written when a sync that covers it began, and has succeeded. A page is
 * used by one thread at a time, so that each read has exactly one right answer.
 */
struct page_oracle {
	pthread_mutex_t lock;
	_Atomic uint32_t writing; /* the same as written, or under way */
	_Atomic uint32_t written;
	_Atomic uint32_t synced;
};

struct oracle {
	_Atomic uint64_t operations, reads, writes, syncs, drops;
	_Atomic int stop, failed;
	uint64_t pages;
	struct page_oracle page[];
};

struct worker {
	pthread_t thread;
	struct oracle *oracle;
	const char *path;
	char *map;
	int fd;
	unsigned int id;
	uint64_t random;
};

static uint64_t draw(uint64_t *state, uint64_t most)
{
	*state += 0x9e3779b97f4a7c15ull;
	return mix(*state) % most;
}

static struct oracle *oracle_map(const char *path, uint64_t pages)
{
	int fd = open(path, O_RDWR | (pages ? O_CREAT | O_TRUNC : 0), 0600);
	size_t bytes;

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	if (pages && ftruncate(fd, sizeof(struct oracle) + pages * sizeof(struct page_oracle)))
		die("%s: %s", path, strerror(errno));
	bytes = file_size(fd);
	return map(fd, bytes, true);
}

static void __noreturn worker_failed(struct worker *w, const char *what, uint64_t page,
				     const struct stamp *seen, uint32_t want)
{
	atomic_store(&w->oracle->failed, 1);
	if (seen)
		die("worker %u: page %llu is %s: page %llu seq %u writer %u, want seq %u", w->id,
		    (unsigned long long)page, what, (unsigned long long)seen->page, seen->seq, seen->writer,
		    want);
	die("worker %u: page %llu: %s: %s", w->id, (unsigned long long)page, what, strerror(errno));
}

static void one_page(struct worker *w, bool writes, bool mapped)
{
	uint64_t page = draw(&w->random, w->oracle->pages), buffer[WORDS];
	struct page_oracle *o = &w->oracle->page[page];
	uint64_t *at = (uint64_t *)(w->map + page * PAGE);
	struct stamp seen;
	const char *wrong;
	uint32_t now;

	pthread_mutex_lock(&o->lock);
	now = atomic_load(&o->written);
	if (!mapped && pread(w->fd, buffer, PAGE, page * PAGE) != PAGE)
		worker_failed(w, "pread", page, NULL, 0);
	wrong = page_wrong(mapped ? at : buffer, page, PAGE, &seen);
	if (wrong || seen.seq != now)
		worker_failed(w, wrong ? wrong : "of another time", page, &seen, now);
	if (writes) {
		page_fill(buffer, &(struct stamp){ .page = page, .seq = now + 1, .writer = w->id });
		atomic_store(&o->writing, now + 1);
		if (mapped)
			memcpy(at, buffer, PAGE);
		else if (pwrite(w->fd, buffer, PAGE, page * PAGE) != PAGE)
			worker_failed(w, "pwrite", page, NULL, 0);
		atomic_store(&o->written, now + 1);
	}
	pthread_mutex_unlock(&o->lock);
	atomic_fetch_add(writes ? &w->oracle->writes : &w->oracle->reads, 1);
}

static void sync_range(struct worker *w, uint64_t first, uint64_t count, bool whole)
{
	static __thread uint32_t *before;
	uint64_t i;

	if (!before)
		before = calloc(w->oracle->pages, sizeof(*before));
	for (i = 0; i < count; i++)
		before[i] = atomic_load(&w->oracle->page[first + i].written);
	if (whole ? fsync(w->fd) : msync(w->map + first * PAGE, count * PAGE, MS_SYNC))
		worker_failed(w, whole ? "fsync" : "msync", first, NULL, 0);
	for (i = 0; i < count; i++) {
		_Atomic uint32_t *synced = &w->oracle->page[first + i].synced;
		uint32_t old = atomic_load(synced);

		while (old < before[i] && !atomic_compare_exchange_weak(synced, &old, before[i]))
			;
	}
	atomic_fetch_add(&w->oracle->syncs, 1);
}

static void drop_range(struct worker *w, uint64_t first, uint64_t count)
{
	struct rmem_ioc_range range = { .size = sizeof(range), .offset = first * PAGE,
					.length = count * PAGE };

	if (ioctl(w->fd, RMEM_IOC_DROP, &range))
		worker_failed(w, "drop", first, NULL, 0);
	atomic_fetch_add(&w->oracle->drops, 1);
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	uint64_t pages = w->oracle->pages, first, count;

	while (!atomic_load(&w->oracle->stop) && !atomic_load(&w->oracle->failed)) {
		uint64_t dice = draw(&w->random, 1000);

		first = draw(&w->random, pages);
		count = 1 + draw(&w->random, pages - first < 64 ? pages - first : 64);
		if (dice < 350)
			one_page(w, false, true);
		else if (dice < 650)
			one_page(w, true, true);
		else if (dice < 780)
			one_page(w, false, false);
		else if (dice < 910)
			one_page(w, true, false);
		else if (dice < 960)
			drop_range(w, first, count);
		else if (dice < 995)
			sync_range(w, first, count, false);
		else
			sync_range(w, 0, pages, true);
		atomic_fetch_add(&w->oracle->operations, 1);
	}
	return NULL;
}

static struct oracle *stopped_by_signal;

static void on_term(int signal)
{
	(void)signal;
	atomic_store(&stopped_by_signal->stop, 1);
}

static int cmd_run(const char *verb, char **args, int count)
{
	int fd = open_path(args[0], O_RDWR), status, bad = 0;
	uint64_t size = file_size(fd), pages = size / PAGE, i;
	unsigned int processes = number(args[2]), threads = number(args[3]), p, t;
	const char *seed = getenv("RMEM_SEED");
	struct oracle *oracle = oracle_map(args[1], pages);
	struct sigaction action = { .sa_handler = on_term };
	pthread_mutexattr_t shared;

	pthread_mutexattr_init(&shared);
	pthread_mutexattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
	oracle->pages = pages;
	for (i = 0; i < pages; i++)
		pthread_mutex_init(&oracle->page[i].lock, &shared);
	stopped_by_signal = oracle;
	sigaction(SIGTERM, &action, NULL);
	for (p = 0; p < processes; p++) {
		struct worker w[threads];

		if (fork())
			continue;
		for (t = 0; t < threads; t++) {
			/* Each process opens and maps for itself. */
			if (!t) {
				w[0].fd = open_path(args[0], O_RDWR);
				w[0].map = map(w[0].fd, size, true);
			}
			w[t] = (struct worker){ .oracle = oracle, .path = args[0], .map = w[0].map,
						.fd = w[0].fd, .id = 1 + p * threads + t };
			w[t].random = (seed ? number(seed) : 1) * 1000 + w[t].id;
			if (pthread_create(&w[t].thread, NULL, worker_run, &w[t]))
				die("no thread");
		}
		for (t = 0; t < threads; t++)
			pthread_join(w[t].thread, NULL);
		exit(0);
	}
	close(fd);
	printf("ready\n");
	fflush(stdout);
	for (p = 0; p < processes; p++) {
		while (wait(&status) < 0 && errno == EINTR)
			;
		if (status) {
			/* Of a process that was killed nobody says so. */
			atomic_store(&oracle->failed, 1);
			fprintf(stderr, "rmem-load: a process ended with wait status %#x\n", status);
			bad = 1;
		}
	}
	printf("%llu operations: %llu reads, %llu writes, %llu syncs, %llu drops\n",
	       (unsigned long long)oracle->operations, (unsigned long long)oracle->reads,
	       (unsigned long long)oracle->writes, (unsigned long long)oracle->syncs,
	       (unsigned long long)oracle->drops);
	return bad;
}

static int cmd_progress(const char *verb, char **args, int count)
{
	printf("%llu\n", (unsigned long long)oracle_map(args[0], 0)->operations);
	return 0;
}

/*
 * At any moment: no page is older than what was synced or newer than what was
 * written, and only one that is not synced may be torn. When all is synced
 * (exact): every page is what was written.
 */
static int cmd_compare(const char *verb, char **args, int count)
{
	bool exact = count > 2;
	struct oracle *oracle = oracle_map(args[1], 0);
	int fd = open_path(args[0], O_RDONLY);
	uint64_t page, buffer[WORDS], written = 0, torn = 0;

	if (file_size(fd) != oracle->pages * PAGE)
		die("%s: %llu bytes", args[0], (unsigned long long)file_size(fd));
	for (page = 0; page < oracle->pages; page++) {
		struct page_oracle *o = &oracle->page[page];
		uint32_t least = exact ? o->written : o->synced, most;
		struct stamp seen;
		const char *wrong;

		if (pread(fd, buffer, PAGE, page * PAGE) != PAGE)
			die("%s: %s", args[0], strerror(errno));
		wrong = page_wrong(buffer, page, PAGE, &seen);
		most = o->writing;
		if (wrong && !strncmp(wrong, "torn", 4) && least < most) {
			torn++;
			continue;
		}
		if (wrong || seen.seq < least || seen.seq > most)
			die("%s: page %llu is %s: page %llu seq %u writer %u, want %u to %u", args[0],
			    (unsigned long long)page, wrong ? wrong : "of another time",
			    (unsigned long long)seen.page, seen.seq, seen.writer, least, most);
		written += seen.seq > 0;
	}
	printf("%llu pages: %llu were written, %llu are torn and not synced\n",
	       (unsigned long long)oracle->pages, (unsigned long long)written,
	       (unsigned long long)torn);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int least, most; /* arguments */
		int (*run)(const char *verb, char **args, int count);
	} verbs[] = {
		{ "make", 3, 3, cmd_make },	{ "check", 2, 2, cmd_check },
		{ "read", 2, 3, cmd_pass },	{ "write", 2, 3, cmd_pass },
		{ "rewrite", 2, 3, cmd_pass },	{ "peek", 2, 2, cmd_access },
		{ "poke", 3, 4, cmd_access },	{ "pread", 3, 3, cmd_access },
		{ "pwrite", 3, 3, cmd_access },	{ "fsync", 1, 1, cmd_access },
		{ "punch", 3, 3, cmd_access },	{ "hold", 1, 1, cmd_hold },
		{ "scan", 1, 1, cmd_scan },
		{ "run", 4, 4, cmd_run },	{ "progress", 1, 1, cmd_progress },
		{ "compare", 2, 3, cmd_compare }, { "unmake", 1, 1, cmd_unmake },
	};
	int count = argc - 2;
	size_t i;

	for (i = 0; argc > 1 && i < sizeof(verbs) / sizeof(*verbs); i++)
		if (!strcmp(argv[1], verbs[i].name) && count >= verbs[i].least &&
		    count <= verbs[i].most)
			return verbs[i].run(argv[1], argv + 2, count);
	fprintf(stderr, "usage: rmem-load VERB ARGUMENT...; the source begins with a list\n");
	return 2;
}
