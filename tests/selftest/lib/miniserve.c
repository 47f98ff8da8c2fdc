// SPDX-License-Identifier: GPL-2.0-only
#include "miniserve.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long msec(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/*
 * A bare channel
 */

int chan_open(struct chan *c, __u32 entries)
{
	struct rmem_ioc_setup s = {
		.size = sizeof(s),
		.ring_entries = entries,
		.uapi_major = RMEM_UAPI_MAJOR,
	};
	int err;

	memset(c, 0, sizeof(*c));
	c->fd = open(CONTROL_PATH, O_RDWR | O_CLOEXEC);
	if (c->fd < 0)
		return -errno;
	if (ioctl(c->fd, RMEM_IOC_SETUP, &s)) {
		err = errno;
		close(c->fd);
		return -err;
	}
	c->bytes = s.ring_bytes;
	c->generation = s.generation;
	c->ring = mmap(NULL, c->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (c->ring == MAP_FAILED) {
		err = errno;
		close(c->fd);
		return -err;
	}
	/* A child's copy would keep the channel alive. */
	madvise(c->ring, c->bytes, MADV_DONTFORK);
	c->entries = c->ring->entries;
	return 0;
}

void chan_close(struct chan *c)
{
	munmap(c->ring, c->bytes);
	close(c->fd);
}

static int region_ioctl(int fd, unsigned long nr, __u32 id)
{
	struct rmem_ioc_region r = { .size = sizeof(r), .region_id = id };

	return ioctl(fd, nr, &r) ? -errno : 0;
}

int chan_serve(struct chan *c, __u32 id)
{
	return region_ioctl(c->fd, RMEM_IOC_SERVE, id);
}

int chan_push(struct chan *c, __u32 id)
{
	return region_ioctl(c->fd, RMEM_IOC_PUSH, id);
}

int chan_state(struct chan *c, __u32 id, __u32 state, const char *reason)
{
	struct rmem_ioc_state s = {
		.size = sizeof(s), .region_id = id, .state = state,
	};

	snprintf(s.reason, sizeof(s.reason), "%s", reason ?: "");
	return ioctl(c->fd, RMEM_IOC_STATE, &s) ? -errno : 0;
}

int chan_next(struct chan *c, struct rmem_request *r, int ms)
{
	const struct rmem_request *e = (void *)((char *)c->ring +
						c->ring->entries_offset);
	struct pollfd p = { .fd = c->fd, .events = POLLIN };
	long long end = msec() + ms, left;
	__u32 head;

	for (;;) {
		head = __atomic_load_n(&c->ring->head, __ATOMIC_ACQUIRE);
		if (head != c->tail) {
			*r = e[c->tail % c->entries];
			c->tail++;
			__atomic_store_n(&c->ring->tail, c->tail, __ATOMIC_RELEASE);
			return 1;
		}
		/* looked at once: a negative time-out would be forever */
		left = end - msec();
		if (left <= 0)
			return 0;
		poll(&p, 1, left);
	}
}

int chan_fill(struct chan *c, __u64 cookie, __u64 offset, __u64 length,
	      const void *addr, __u32 flags)
{
	struct rmem_ioc_fill f = {
		.size = sizeof(f),
		.flags = flags,
		.cookie = cookie,
		.offset = offset,
		.length = length,
		.addr = (unsigned long)addr,
	};

	return ioctl(c->fd, RMEM_IOC_FILL, &f) ? -errno : 0;
}

int chan_receive(struct chan *c, __u64 cookie, __u64 offset, __u64 length, int fd,
		 __u32 flags, __u32 checksum, __u64 *received)
{
	struct rmem_ioc_receive r = {
		.size = sizeof(r),
		.flags = flags,
		.cookie = cookie,
		.offset = offset,
		.length = length,
		.fd = fd,
		.checksum = checksum,
	};
	int ret = ioctl(c->fd, RMEM_IOC_RECEIVE, &r) ? -errno : 0;

	if (received)
		*received = r.received;
	return ret;
}

int chan_lane(struct chan *c, struct rmem_ioc_lane *lane)
{
	return ioctl(c->fd, RMEM_IOC_LANE, lane) ? -errno : 0;
}

int chan_end_lane(struct chan *c, __u32 id)
{
	struct rmem_ioc_lane l = { .size = sizeof(l), .region_id = id, .fd = -1 };

	return chan_lane(c, &l);
}

int chan_complete(struct chan *c, const __u64 *cookies, __u32 count, __u32 error)
{
	struct rmem_ioc_complete x = {
		.size = sizeof(x),
		.error = error,
		.count = count,
		.cookies = (unsigned long)cookies,
	};

	return ioctl(c->fd, RMEM_IOC_COMPLETE, &x) ? -errno : (int)x.unknown;
}

int chan_writeout(struct chan *c, __u64 cookie, void *buf, __u64 bytes,
		  struct rmem_run *runs, __u32 room, __u64 *copied)
{
	struct rmem_ioc_writeout w = {
		.size = sizeof(w),
		.cookie = cookie,
		.addr = (unsigned long)buf,
		.addr_bytes = bytes,
		.runs = (unsigned long)runs,
		.run_count = room,
	};

	if (ioctl(c->fd, RMEM_IOC_WRITEOUT, &w))
		return -errno;
	if (copied)
		*copied = w.bytes;
	return w.run_count;
}

int chan_runs(struct chan *c, __u64 cookie, struct rmem_write_run *runs, __u32 room)
{
	struct rmem_ioc_runs r = {
		.size = sizeof(r),
		.cookie = cookie,
		.runs = (unsigned long)runs,
		.run_count = room,
	};

	return ioctl(c->fd, RMEM_IOC_RUNS, &r) ? -errno : (int)r.run_count;
}

int chan_send(struct chan *c, __u32 id, __u64 offset, __u64 length, int fd, __u64 *sent)
{
	struct rmem_ioc_send s = {
		.size = sizeof(s),
		.region_id = id,
		.fd = fd,
		.offset = offset,
		.length = length,
	};
	int ret = ioctl(c->fd, RMEM_IOC_SEND, &s) ? -errno : 0;

	if (sent)
		*sent = s.sent;
	return ret;
}

int chan_prefetch(struct chan *c, __u32 id, __u32 flags, __u64 offset, __u64 length)
{
	struct rmem_ioc_prefetch p = {
		.size = sizeof(p),
		.flags = flags,
		.region_id = id,
		.offset = offset,
		.length = length,
	};

	return ioctl(c->fd, RMEM_IOC_PREFETCH, &p) ? -errno : (int)p.queued;
}

/*
 * A daemon: the process
 */

#define MAX_RUNS (RMEM_CHUNK_MAX / 4096 / 2 + 1)

enum { CALL_NONE, CALL_PUSH, CALL_STATE, CALL_PREFETCH, CALL_SYNC };

/* A request that waits for its answer. */
struct held {
	struct held *next;
	struct rmem_request r;
	long long due;
	__u64 filled;		/* FETCH: bytes the kernel has */
	unsigned char *data;	/* WRITE: what WRITEOUT gave */
	struct rmem_run runs[MAX_RUNS];
	int nr_runs;
};

struct serve {
	struct mini *m;
	struct chan c;
	struct held *first, **last;
};

static void count(__u64 *counter, __u64 n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_SEQ_CST);
}

static void trouble(struct mini *m, const char *call, int ret)
{
	if (ret == -ENOENT) {
		count(&m->unknown, 1);
		return;
	}
	snprintf(m->trouble_call, sizeof(m->trouble_call), "%s", call);
	m->trouble_errno = -ret;
	count(&m->trouble, 1);
}

static void note(struct mini *m, int op, const struct rmem_request *r,
		 __u64 offset, __u64 length)
{
	__u32 n = m->nlog;

	if (n == MINI_LOG)
		return;
	m->log[n] = (struct mini_log){
		.op = op,
		.flags = r->flags,
		.region_id = r->region_id,
		.tid = r->tid,
		.offset = offset,
		.length = length,
		.demand = r->demand_offset,
		.cookie = r->cookie,
	};
	MINI_SET(m, nlog, n + 1);
}

static struct mini_region *region_of(struct mini *m, __u32 id)
{
	int i;

	for (i = 0; i < m->nr_regions; i++)
		if (m->regions[i].id == id)
			return &m->regions[i];
	return NULL;
}

/* False: there is nothing to write, nor to answer. */
static bool take_write(struct serve *s, struct held *h)
{
	struct mini *m = s->m;
	__u64 copied = 0;
	int i, n;

	h->data = malloc(h->r.payload ?: 1);
	n = chan_writeout(&s->c, h->r.cookie, h->data, h->r.payload, h->runs,
			  MAX_RUNS, &copied);
	if (n < 0) {
		trouble(m, "writeout", n);
		return false;
	}
	h->nr_runs = n;
	for (i = 0; i < n; i++)
		note(m, MINI_RUN, &h->r, h->runs[i].offset, h->runs[i].length);
	count(&m->write_bytes, copied);
	count(&m->runs, n);
	return true;
}

static void take(struct serve *s, const struct rmem_request *r)
{
	struct mini *m = s->m;
	struct held *h = calloc(1, sizeof(*h));

	h->r = *r;
	h->due = msec();
	if (r->flags & RMEM_REQ_AGAIN)
		count(&m->again, 1);
	note(m, r->op, r, r->offset, r->length);
	switch (r->op) {
	case RMEM_OP_FETCH:
		h->due += MINI_GET(m, fetch_delay_ms);
		count(&m->fetch_bytes, r->length);
		if (r->flags & RMEM_REQ_PREFETCH)
			count(&m->prefetches, 1);
		count(&m->held, 1);
		count(&m->fetches, 1);
		break;
	case RMEM_OP_WRITE:
		if (!take_write(s, h)) {
			free(h->data);
			free(h);
			return;
		}
		if (r->flags & RMEM_REQ_SYNC)
			count(&m->syncs, 1);
		count(&m->held, 1);
		count(&m->writes, 1);
		break;
	case RMEM_OP_ZERO:
		count(&m->zero_bytes, r->length);
		count(&m->held, 1);
		count(&m->zeros, 1);
		break;
	case RMEM_OP_HIT:
		count(&m->hits, 1);
		break;
	default:
		trouble(m, "op", -EPROTO);
	}
	*s->last = h;
	s->last = &h->next;
}

static void complete(struct serve *s, const struct held *h, int error)
{
	int ret = chan_complete(&s->c, &h->r.cookie, 1, error);

	if (ret < 0)
		trouble(s->m, "complete", ret);
	else
		count(&s->m->unknown, ret);
}

/* False: it has to be tried again. */
static bool answer_fetch(struct serve *s, struct held *h)
{
	struct mini_region *r = region_of(s->m, h->r.region_id);
	__u32 piece = MINI_GET(s->m, fetch_piece) ?: h->r.length;
	__u64 at, n;
	int ret;

	if (!r || h->r.offset + h->r.length > r->size) {
		trouble(s->m, "fetch", -ERANGE);
		return true;
	}
	for (at = h->filled; at < h->r.length; at += n) {
		n = h->r.length - at < piece ? h->r.length - at : piece;
		ret = chan_fill(&s->c, h->r.cookie, at, n,
				r->store + h->r.offset + at, 0);
		if (ret == -ENOMEM) {
			/* With the last byte the cursor goes back to 0. */
			h->filled = at + n < h->r.length ? at : 0;
			h->due = msec() + 5;
			count(&s->m->nomem, 1);
			return false;
		}
		if (ret) {
			trouble(s->m, "fill", ret);
			return true;
		}
	}
	count(&s->m->filled, 1);
	return true;
}

static void answer_write(struct serve *s, const struct held *h)
{
	struct mini_region *r = region_of(s->m, h->r.region_id);
	const unsigned char *data = h->data;
	int i;

	if (!r || h->r.offset + h->r.length > r->size) {
		trouble(s->m, "write", -ERANGE);
		return;
	}
	if (h->r.op == RMEM_OP_ZERO)
		memset(r->store + h->r.offset, 0, h->r.length);
	for (i = 0; i < h->nr_runs; i++) {
		if (h->runs[i].offset + h->runs[i].length > r->size) {
			trouble(s->m, "run", -ERANGE);
			return;
		}
		memcpy(r->store + h->runs[i].offset, data, h->runs[i].length);
		data += h->runs[i].length;
	}
	complete(s, h, 0);
}

/* False: it has to wait. */
static bool answer(struct serve *s, struct held *h)
{
	struct mini *m = s->m;
	int fails;

	if (h->r.op == RMEM_OP_FETCH) {
		switch (MINI_GET(m, fetch_mode)) {
		case MINI_HOLD:
			return false;
		case MINI_FAIL:
			complete(s, h, MINI_GET(m, fetch_errno));
			return true;
		}
		return msec() >= h->due && answer_fetch(s, h);
	} else if (h->r.op == RMEM_OP_WRITE || h->r.op == RMEM_OP_ZERO) {
		switch (MINI_GET(m, write_mode)) {
		case MINI_HOLD:
			if (!MINI_GET(m, write_release))
				return false;
			MINI_SET(m, write_release, MINI_GET(m, write_release) - 1);
			break;
		case MINI_HOLD_ZERO:
			if (h->r.op == RMEM_OP_ZERO)
				return false;
			break;
		case MINI_FAIL:
			fails = MINI_GET(m, write_fails);
			if (!fails)
				break;
			if (fails > 0)
				MINI_SET(m, write_fails, fails - 1);
			complete(s, h, MINI_GET(m, write_errno));
			return true;
		}
		answer_write(s, h);
	}
	return true;
}

static void do_call(struct serve *s)
{
	struct mini *m = s->m;
	int ret = -EINVAL;

	switch (MINI_GET(m, call)) {
	case CALL_NONE:
		return;
	case CALL_SYNC:
		ret = 0;
		break;
	case CALL_PUSH:
		ret = chan_push(&s->c, m->call_id);
		break;
	case CALL_STATE:
		ret = chan_state(&s->c, m->call_id, m->call_state, "test");
		break;
	case CALL_PREFETCH:
		ret = chan_prefetch(&s->c, m->call_id, MINI_GET(m, prefetch_flags),
				    m->call_offset, m->call_length);
		break;
	}
	MINI_SET(m, call_ret, ret);
	MINI_SET(m, call, CALL_NONE);
}

/* A fork has the test's mappings of regions; they are not ours. */
static void forget_mappings(void)
{
	unsigned long start[128], end[128];
	char line[512];
	int n = 0;
	FILE *f;

	f = fopen("/proc/self/maps", "re");
	while (f && n < 128 && fgets(line, sizeof(line), f))
		if (strstr(line, "/dev/rmem") || strstr(line, "rmem-selftest/"))
			n += sscanf(line, "%lx-%lx", &start[n], &end[n]) == 2;
	if (f)
		fclose(f);
	while (n--)
		munmap((void *)start[n], end[n] - start[n]);
}

/* An address space that reclaim is looking at, like the last one's, goes away a little later. */
static int serve(struct chan *c, __u32 id)
{
	long long end = msec() + 3000;
	int ret;

	while ((ret = chan_serve(c, id)) == -EBUSY && msec() < end)
		poll(NULL, 0, 1);
	return ret;
}

static void mini_process(struct mini *m)
{
	struct serve s = { .m = m };
	struct rmem_request r;
	struct held **p, *h;
	int ret, i;

	s.last = &s.first;
	forget_mappings();
	close_range(3, ~0U, 0);
	ret = chan_open(&s.c, m->ring_entries);
	for (i = 0; !ret && i < m->nr_regions; i++)
		ret = serve(&s.c, m->regions[i].id);
	for (i = 0; !ret && i < m->nr_regions; i++)
		ret = chan_state(&s.c, m->regions[i].id, RMEM_STATE_ACTIVE, "");
	MINI_SET(m, started, ret ?: 1);
	if (ret)
		return;
	for (;;) {
		do_call(&s);
		ret = 0;
		if (MINI_GET(m, stall))
			poll(NULL, 0, 2);
		else
			ret = chan_next(&s.c, &r, s.first ? 1 : 5);
		while (ret) {
			take(&s, &r);
			ret = chan_next(&s.c, &r, 0);
		}
		for (p = &s.first; (h = *p);) {
			if (!answer(&s, h)) {
				p = &h->next;
				continue;
			}
			if (h->r.op != RMEM_OP_HIT)
				count(&m->held, -1);
			*p = h->next;
			free(h->data);
			free(h);
		}
		s.last = p;
	}
}

/*
 * A daemon: the test's side
 */

struct mini *mini_new(void)
{
	struct mini *m = mmap(NULL, sizeof(*m), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (m == MAP_FAILED)
		abort();
	m->ring_entries = 1024;
	return m;
}

int mini_add(struct mini *m, const struct region_conf *c)
{
	struct mini_region *r = &m->regions[m->nr_regions];
	struct region_conf conf = *c;
	int ret;

	if (m->nr_regions == MINI_REGIONS)
		return -ENOSPC;
	snprintf(r->name, sizeof(r->name), "%s", c->name ?: region_fresh_name());
	conf.name = r->name;
	r->size = c->size;
	r->store = mmap(NULL, c->size, PROT_READ | PROT_WRITE,
			MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (r->store == MAP_FAILED)
		return -errno;
	pattern_fill(r->store, 0, c->size);
	ret = region_new(&conf, &r->id);
	if (ret)
		return ret;
	m->nr_regions++;
	return 0;
}

int mini_start(struct mini *m)
{
	pid_t parent = getpid(), pid;
	long long end = msec() + 20000;

	m->started = 0;
	m->held = 0;
	m->call = CALL_NONE;
	pid = fork();
	if (pid < 0)
		return -errno;
	if (!pid) {
		prctl(PR_SET_NAME, "miniserve");
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() == parent)
			mini_process(m);
		_exit(0);
	}
	m->pid = pid;
	while (!MINI_GET(m, started)) {
		if (waitpid(m->pid, NULL, WNOHANG) || msec() > end)
			return -ECHILD;
		poll(NULL, 0, 1);
	}
	return m->started == 1 ? 0 : m->started;
}

void mini_kill(struct mini *m)
{
	if (!m->pid)
		return;
	kill(m->pid, SIGKILL);
	waitpid(m->pid, NULL, 0);
	m->pid = 0;
	MINI_SET(m, held, 0);
}

static int mini_call(struct mini *m, int call, __u32 id)
{
	long long end = msec() + 20000;

	m->call_id = id;
	MINI_SET(m, call, call);
	while (MINI_GET(m, call)) {
		if (msec() > end)
			return -ETIMEDOUT;
		poll(NULL, 0, 1);
	}
	return m->call_ret;
}

int mini_settle(struct mini *m)
{
	/* It may be in the middle of its work: a call sees it come back. */
	return mini_call(m, CALL_SYNC, 0);
}

int mini_stall(struct mini *m)
{
	MINI_SET(m, stall, 1);
	return mini_settle(m);
}

int mini_push(struct mini *m, __u32 id)
{
	return mini_call(m, CALL_PUSH, id);
}

int mini_state(struct mini *m, __u32 id, __u32 state)
{
	m->call_state = state;
	return mini_call(m, CALL_STATE, id);
}

int mini_prefetch(struct mini *m, __u32 id, __u64 offset, __u64 length)
{
	m->call_offset = offset;
	m->call_length = length;
	return mini_call(m, CALL_PREFETCH, id);
}

void mini_log_clear(struct mini *m)
{
	MINI_SET(m, nlog, 0);
}

int mini_logged(struct mini *m, int op, __u64 offset, __u64 length)
{
	__u32 i, n = MINI_GET(m, nlog);
	int found = 0;

	for (i = 0; i < n; i++)
		found += m->log[i].op == op &&
			 m->log[i].offset < offset + length &&
			 m->log[i].offset + m->log[i].length > offset;
	return found;
}

__u64 mini_logged_bytes(struct mini *m, int op)
{
	__u32 i, n = MINI_GET(m, nlog);
	__u64 bytes = 0;

	for (i = 0; i < n; i++)
		if (m->log[i].op == op)
			bytes += m->log[i].length;
	return bytes;
}

/*
 * One daemon, one region, one mapping
 */

int fix_start(struct fix *f, const struct region_conf *c)
{
	bool ro = c->flags & RMEM_REGION_READ_ONLY;
	int ret;

	memset(f, 0, sizeof(*f));
	f->m = mini_new();
	ret = mini_add(f->m, c);
	if (ret)
		return ret;
	f->id = f->m->regions[0].id;
	f->size = c->size;
	f->store = f->m->regions[0].store;
	memcpy(f->name, f->m->regions[0].name, sizeof(f->name));
	ret = mini_start(f->m);
	if (ret)
		return ret;
	f->fd = region_open(f->name, ro ? O_RDONLY : O_RDWR);
	if (f->fd < 0)
		return f->fd;
	f->map = mmap(NULL, f->size, ro ? PROT_READ : PROT_READ | PROT_WRITE,
		      MAP_SHARED, f->fd, 0);
	return f->map == MAP_FAILED ? -errno : 0;
}

int fix_quiet(struct fix *f)
{
	return mini_state(f->m, f->id, RMEM_STATE_DEGRADED);
}

int fix_push(struct fix *f)
{
	int ret = mini_state(f->m, f->id, RMEM_STATE_ACTIVE);

	ret = ret ?: mini_push(f->m, f->id);
	return ret ?: fix_quiet(f);
}

long long fix_at_risk(const struct fix *f)
{
	FILE *regions = fopen("/sys/kernel/debug/rmem/regions", "r");
	long long pages = -1;
	char line[512], *at;

	while (regions && fgets(line, sizeof(line), regions)) {
		if (strncmp(line, f->name, strlen(f->name)) || line[strlen(f->name)] != ' ')
			continue;
		at = strstr(line, " unsafe=");
		if (at)
			sscanf(at, " unsafe=%lld", &pages);
	}
	if (pages < 0)
		abort();
	fclose(regions);
	return pages * 4096;
}

long long fix_unclean(const struct fix *f)
{
	struct region_stat st;

	if (region_get(f->id, &st))
		return -1;
	return st.dirty + st.writeback;
}

int fix_stop(struct fix *f)
{
	int ret = 0, busy = 0, i;

	MINI_SET(f->m, stall, 0);
	MINI_SET(f->m, fetch_mode, MINI_OK);
	MINI_SET(f->m, write_mode, MINI_OK);
	if (munmap(f->map, f->size) || fsync(f->fd))
		ret = -errno;
	if (close(f->fd) && !ret)
		ret = -errno;
	if (!ret && f->m->trouble) {
		printf("# daemon: %s: %s\n", f->m->trouble_call,
		       strerrorname_np(f->m->trouble_errno));
		ret = -EPROTO;
	}
	/* here, too */
	for (i = 0; !ret && i < 300; i++) {
		busy = region_del(f->id);
		if (busy != -EBUSY)
			break;
		usleep(10000);
	}
	ret = ret ?: busy;
	mini_kill(f->m);
	munmap(f->store, f->size);
	munmap(f->m, sizeof(*f->m));
	return ret;
}

/*
 * Called by the harness between tests: nothing of a failed one shall be left.
 */

struct left {
	int nr;
	__u32 id[256];
};

static void find_left(const struct region_stat *st, void *arg)
{
	struct left *l = arg;

	if (!strcmp(st->instance, TEST_INSTANCE) && l->nr < 256)
		l->id[l->nr++] = st->id;
}

void harness_after(void)
{
	struct left l = { 0 };
	int i, ret;

	if (region_dump(find_left, &l))
		return;
	for (i = 0; i < l.nr; i++) {
		ret = region_del_force(l.id[i], NULL);
		printf("# left over: region %u, deleted: %s\n", l.id[i],
		       ret ? strerrorname_np(-ret) : "yes");
	}
}
