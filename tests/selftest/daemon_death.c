// SPDX-License-Identifier: GPL-2.0-only
/*
 * The daemon dies, is silent, lies or comes back; nothing is lost by it.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "harness.h"
#include "miniserve.h"

#define PAGE 4096
#define CHUNK 65536
#define CHUNKS 16
#define SIZE (CHUNKS * CHUNK)

static const struct region_conf plain = { .size = SIZE, .order = -1 };

static void start(struct fix *f, const struct region_conf *c)
{
	ASSERT_RET(fix_start(f, c), 0);
}

static void stop(struct fix *f)
{
	EXPECT_RET(fix_stop(f), 0);
}

struct reader {
	struct fix *f;
	int chunk;
	pthread_t thread;
};

static void *reader_thread(void *arg)
{
	struct reader *r = arg;
	size_t at = (size_t)r->chunk * CHUNK;

	EXPECT_EQ(pattern_diff(r->f->map + at, at, CHUNK), -1);
	return NULL;
}

static void readers_start(struct reader *r, int n, struct fix *f)
{
	int i;

	for (i = 0; i < n; i++) {
		r[i] = (struct reader){ .f = f, .chunk = i };
		ASSERT_EQ(pthread_create(&r[i].thread, NULL, reader_thread, &r[i]), 0);
	}
}

static void readers_join(struct reader *r, int n)
{
	int i;

	for (i = 0; i < n; i++)
		pthread_join(r[i].thread, NULL);
}

/*
 * Death and successor
 */

TEST(fetches_wait_for_the_successor)
{
	struct reader r[8];
	struct fix f;
	__u32 first;

	start(&f, &plain);
	MINI_SET(f.m, fetch_mode, MINI_HOLD);
	readers_start(r, 8, &f);
	ASSERT_SOON(MINI_GET(f.m, held) == 8);
	ASSERT_SOON(STAT(f.id, waiting) == 8);
	first = f.m->nlog;
	mini_kill(f.m);
	EXPECT_SOON(STAT(f.id, state) == RMEM_STATE_QUIESCED);
	EXPECT_EQ(STAT(f.id, daemon_pid), 0);
	EXPECT_EQ(STAT(f.id, waiting), 8);
	MINI_SET(f.m, fetch_mode, MINI_OK);
	ASSERT_RET(mini_start(f.m), 0);
	readers_join(r, 8);
	EXPECT_EQ(STAT(f.id, state), RMEM_STATE_ACTIVE);
	EXPECT_EQ(STAT(f.id, daemon_pid), f.m->pid);
	EXPECT_EQ(MINI_GET(f.m, again), 8);
	EXPECT_EQ(f.m->nlog, first + 8);
	EXPECT_EQ(pattern_diff(f.map, 0, SIZE), -1);
	stop(&f);
}

/* Asked for while nobody was there. */
TEST(fetches_without_a_daemon)
{
	struct reader r[8];
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map + 15 * CHUNK, 15 * CHUNK, CHUNK), -1);
	mini_kill(f.m);
	readers_start(r, 8, &f);
	ASSERT_SOON(STAT(f.id, waiting) == 8);
	/* What is resident stays readable, and writable. */
	EXPECT_EQ(pattern_diff(f.map + 15 * CHUNK, 15 * CHUNK, CHUNK), -1);
	stamp(f.map + 15 * CHUNK, 1);
	EXPECT(stamped(f.map + 15 * CHUNK, 1));
	EXPECT_EQ(STAT(f.id, dirty), PAGE);
	ASSERT_RET(mini_start(f.m), 0);
	readers_join(r, 8);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT(stamped(f.store + 15 * CHUNK, 1));
	stop(&f);
}

static int touch_first_chunk(void *arg)
{
	struct fix *f = arg;

	peek(f->map);
	return 0;
}

TEST(sigkill_without_a_daemon)
{
	struct fix f;
	int status;
	pid_t pid;

	start(&f, &plain);
	mini_kill(f.m);
	pid = spawn(touch_first_chunk, &f);
	ASSERT_SOON(STAT(f.id, waiting) == 1);
	kill(pid, SIGKILL);
	/* nothing else would ever end it */
	status = reap(pid, 20000);
	EXPECT(status >= 0 && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ASSERT_RET(mini_start(f.m), 0);
	stop(&f);
}

static void *fsync_thread(void *arg)
{
	struct fix *f = arg;

	return (void *)(long)SYS(fsync(f->fd));
}

TEST(writes_wait_for_the_successor)
{
	struct region_conf conf = plain;
	struct fix f;
	pthread_t t;
	void *ret;
	int i;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		ASSERT_RET(fix_quiet(&f), 0);
		for (i = 0; i < CHUNKS; i++)
			stamp(f.map + i * CHUNK + PAGE, i);
		MINI_SET(f.m, write_mode, MINI_HOLD);
		ASSERT_EQ(pthread_create(&t, NULL, fsync_thread, &f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == CHUNKS);
		/* Newer bytes on one of them. */
		stamp(f.map + PAGE, 1000);
		mini_kill(f.m);
		EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback) >= CHUNKS * PAGE, 1);
		EXPECT_EQ(pattern_diff(f.store, 0, SIZE), -1);
		MINI_SET(f.m, write_mode, MINI_OK);
		ASSERT_RET(mini_start(f.m), 0);
		pthread_join(t, &ret);
		EXPECT_RET((long)ret, 0);
		EXPECT_GE(MINI_GET(f.m, again), 1);
		for (i = 1; i < CHUNKS; i++)
			EXPECT(stamped(f.store + i * CHUNK + PAGE, i));
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		EXPECT(stamped(f.store + PAGE, 1000));
		EXPECT_EQ(STAT(f.id, dirty) + STAT(f.id, writeback), 0);
		stop(&f);
	}
}

/* Killed over and over, under readers and writers that do not care. */
struct load {
	struct fix *f;
	int from, to;		/* its pages */
	int stop;
	unsigned int seed;
	int rounds;
	__u64 tag[SIZE / PAGE];
	pthread_t thread;
};

static void *load_thread(void *arg)
{
	struct load *l = arg;
	int p;

	while (!__atomic_load_n(&l->stop, __ATOMIC_RELAXED)) {
		p = l->from + rand_r(&l->seed) % (l->to - l->from);
		if (l->tag[p])
			ASSERT(stamped(l->f->map + p * PAGE, l->tag[p]));
		else
			ASSERT_EQ(pattern_diff(l->f->map + p * PAGE, p * PAGE, PAGE), -1);
		if (rand_r(&l->seed) % 2) {
			l->tag[p] = ++l->rounds * 2 + l->from;
			stamp(l->f->map + p * PAGE, l->tag[p]);
		}
		if (rand_r(&l->seed) % 16 == 0)
			ASSERT_RET(SYS(fsync(l->f->fd)), 0);
		if (rand_r(&l->seed) % 16 == 0)
			ASSERT_RET(region_drop(l->f->fd, 0, 0), 0);
	}
	return NULL;
}

TEST_SECONDS(killed_over_and_over, 120)
{
	static struct load l[2];
	struct region_conf conf = plain;
	unsigned int seed = harness_seed();
	struct fix f;
	int i, p, n;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		memset(l, 0, sizeof(l));
		for (i = 0; i < 2; i++) {
			l[i].f = &f;
			l[i].from = i * SIZE / PAGE / 2;
			l[i].to = (i + 1) * SIZE / PAGE / 2;
			l[i].seed = seed + i;
			ASSERT_EQ(pthread_create(&l[i].thread, NULL, load_thread, &l[i]), 0);
		}
		for (n = 0; n < 30; n++) {
			__u64 seen = MINI_GET(f.m, fetches) + MINI_GET(f.m, writes);

			/* In the middle of its work. */
			ASSERT_SOON(MINI_GET(f.m, fetches) + MINI_GET(f.m, writes) >
				    seen + rand_r(&seed) % 20);
			mini_kill(f.m);
			ASSERT_RET(mini_start(f.m), 0);
		}
		for (i = 0; i < 2; i++)
			__atomic_store_n(&l[i].stop, 1, __ATOMIC_RELAXED);
		for (i = 0; i < 2; i++)
			pthread_join(l[i].thread, NULL);
		EXPECT_RET(SYS(fsync(f.fd)), 0);
		for (i = 0; i < 2; i++) {
			for (p = l[i].from; p < l[i].to; p++) {
				if (l[i].tag[p])
					EXPECT(stamped(f.store + p * PAGE, l[i].tag[p]));
				else
					EXPECT_EQ(pattern_diff(f.store + p * PAGE,
							       p * PAGE, PAGE), -1);
			}
		}
		stop(&f);
	}
}

/*
 * With a bare channel: one region, of which this process is the daemon
 */

struct raw {
	struct chan c;
	__u32 id;
	int fd;
	unsigned char *map;
};

static unsigned char buf[2 * CHUNK] __aligned(4096);

static void raw_start(struct raw *r, const struct region_conf *c)
{
	struct region_conf conf = *c;

	conf.name = region_fresh_name();
	ASSERT_RET(region_new(&conf, &r->id), 0);
	ASSERT_RET(chan_open(&r->c, 64), 0);
	ASSERT_RET(chan_serve(&r->c, r->id), 0);
	ASSERT_RET(chan_state(&r->c, r->id, RMEM_STATE_ACTIVE, ""), 0);
	r->fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	r->map = mmap(NULL, conf.size, PROT_READ | PROT_WRITE, MAP_SHARED, r->fd, 0);
	ASSERT(r->map != MAP_FAILED);
}

static void raw_stop(struct raw *r)
{
	munmap(r->map, SIZE);
	close(r->fd);
	chan_close(&r->c);
	EXPECT_RET(region_del(r->id), 0);
}

static void *raw_reader(void *arg)
{
	struct raw *r = arg;

	EXPECT_EQ(pattern_diff(r->map, 0, CHUNK), -1);
	return NULL;
}

static void *raw_fsync(void *arg)
{
	struct raw *r = arg;

	return (void *)(long)SYS(fsync(r->fd));
}

static void next(struct raw *r, struct rmem_request *q, int op)
{
	ASSERT_EQ(chan_next(&r->c, q, 20000), 1);
	ASSERT_EQ(q->op, op);
}

TEST(half_a_fetch_is_forgotten)
{
	struct rmem_request old, new;
	struct raw r;
	struct chan c;
	pthread_t t;

	raw_start(&r, &plain);
	ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
	next(&r, &old, RMEM_OP_FETCH);
	EXPECT_EQ(old.flags & RMEM_REQ_AGAIN, 0);
	/* Half of it, and wrong at that. */
	memset(buf, 0xbb, sizeof(buf));
	EXPECT_RET(chan_fill(&r.c, old.cookie, 0, CHUNK / 2, buf, 0), 0);
	chan_close(&r.c);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_QUIESCED);

	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, r.id), 0);
	r.c = c;
	next(&r, &new, RMEM_OP_FETCH);
	EXPECT_EQ(new.flags & RMEM_REQ_AGAIN, RMEM_REQ_AGAIN);
	EXPECT_NE(new.cookie, old.cookie);
	EXPECT_EQ(new.offset, 0);
	EXPECT_EQ(new.length, CHUNK);
	/* The old cookie means nothing any more. */
	EXPECT_RET(chan_fill(&r.c, old.cookie, CHUNK / 2, CHUNK / 2, buf, 0), -ENOENT);
	EXPECT_RET(chan_fill(&r.c, old.cookie, 0, CHUNK, buf, 0), -ENOENT);
	EXPECT_RET(chan_complete(&r.c, &old.cookie, 1, EIO), 1);
	/* The new one starts at its beginning. */
	EXPECT_RET(chan_fill(&r.c, new.cookie, CHUNK / 2, CHUNK / 2, buf, 0), -ESPIPE);
	pattern_fill(buf, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, new.cookie, 0, CHUNK, buf, 0), 0);
	pthread_join(t, NULL);
	raw_stop(&r);
}

TEST(write_of_the_dead_is_written_again)
{
	struct region_conf conf = plain;
	struct rmem_request old, new;
	struct rmem_run runs[16];
	struct raw r;
	struct chan c;
	pthread_t t;
	void *ret;
	__u64 n;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		raw_start(&r, &conf);
		pattern_fill(buf, 0, CHUNK);
		ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
		next(&r, &old, RMEM_OP_FETCH);
		EXPECT_RET(chan_fill(&r.c, old.cookie, 0, CHUNK, buf, 0), 0);
		pthread_join(t, NULL);

		stamp(r.map + PAGE, 1);
		ASSERT_EQ(pthread_create(&t, NULL, raw_fsync, &r), 0);
		next(&r, &old, RMEM_OP_WRITE);
		EXPECT_RET(chan_writeout(&r.c, old.cookie, buf, CHUNK, runs, 16, &n), 1);
		EXPECT(stamped(buf, 1));
		stamp(r.map + PAGE, 2);
		chan_close(&r.c);

		ASSERT_RET(chan_open(&c, 64), 0);
		ASSERT_RET(chan_serve(&c, r.id), 0);
		ASSERT_RET(chan_state(&c, r.id, RMEM_STATE_ACTIVE, ""), 0);
		r.c = c;
		next(&r, &new, RMEM_OP_WRITE);
		EXPECT_EQ(new.flags, RMEM_REQ_SYNC | RMEM_REQ_AGAIN | RMEM_REQ_LAST);
		EXPECT_NE(new.cookie, old.cookie);
		EXPECT_RET(chan_complete(&r.c, &old.cookie, 1, 0), 1);
		EXPECT_RET(chan_writeout(&r.c, old.cookie, buf, CHUNK, runs, 16, &n), -ENOENT);
		/* It gives the newest bytes. */
		EXPECT_RET(chan_writeout(&r.c, new.cookie, buf, CHUNK, runs, 16, &n), 1);
		EXPECT(stamped(buf, 2));
		EXPECT_RET(chan_complete(&r.c, &new.cookie, 1, 0), 0);
		pthread_join(t, &ret);
		EXPECT_RET((long)ret, 0);
		/* Clean, or dirty still because written since: never lost. */
		while (STAT(r.id, dirty) + STAT(r.id, writeback)) {
			ASSERT_RET(chan_push(&r.c, r.id), 0);
			next(&r, &new, RMEM_OP_WRITE);
			EXPECT_RET(chan_writeout(&r.c, new.cookie, buf, CHUNK, runs, 16, &n), 1);
			EXPECT(stamped(buf, 2));
			EXPECT_RET(chan_complete(&r.c, &new.cookie, 1, 0), 0);
		}
		raw_stop(&r);
	}
	context(" ");
}

/* Requests that the dead daemon never even took from its ring. */
TEST(requests_never_taken)
{
	struct rmem_request q;
	struct raw r;
	struct chan c;
	pthread_t t;

	raw_start(&r, &plain);
	ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
	ASSERT_SOON(STAT(r.id, waiting) == 1);
	chan_close(&r.c);
	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, r.id), 0);
	r.c = c;
	next(&r, &q, RMEM_OP_FETCH);
	pattern_fill(buf, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, buf, 0), 0);
	pthread_join(t, NULL);
	raw_stop(&r);
}

/* Alive for as long as anything refers to the open file. */
TEST(alive_until_the_last_reference)
{
	struct raw r;
	struct chan c;
	int dup_fd;

	raw_start(&r, &plain);
	dup_fd = ASSERT_OK(SYS(fcntl(r.c.fd, F_DUPFD_CLOEXEC, 0)));
	munmap(r.c.ring, r.c.bytes);
	close(r.c.fd);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_ACTIVE);
	ASSERT_RET(chan_open(&c, 64), 0);
	EXPECT_RET(chan_serve(&c, r.id), -EBUSY);
	close(dup_fd);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_QUIESCED);
	EXPECT_RET(chan_serve(&c, r.id), 0);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_DEGRADED);
	/* The mapping alone keeps it, too. */
	close(c.fd);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_DEGRADED);
	munmap(c.ring, c.bytes);
	EXPECT_EQ(STAT(r.id, state), RMEM_STATE_QUIESCED);
	ASSERT_RET(chan_open(&r.c, 64), 0);
	raw_stop(&r);
}

/*
 * States
 */

/* The next state event of the region. */
static void expect_event(struct nl *nl, __u32 id, __u32 want, __u32 want_state)
{
	__u32 event, of, state;

	do {
		ASSERT_EQ(nl_event(nl, 20000, &event, &of, &state), 1);
	} while (of != id);
	EXPECT_EQ(event, want);
	if (want == RMEM_EVENT_STATE)
		EXPECT_EQ(state, want_state);
}

TEST(states_and_events)
{
	struct region_conf conf = plain;
	struct rmem_ioc_info info;
	struct region_stat st;
	struct chan c;
	struct nl nl;
	__u32 id;
	int fd;

	ASSERT_RET(nl_open(&nl), 0);
	ASSERT_RET(nl_listen(&nl), 0);
	conf.name = region_fresh_name();
	ASSERT_RET(region_new(&conf, &id), 0);
	expect_event(&nl, id, RMEM_EVENT_NEW, 0);
	fd = ASSERT_OK(region_open(conf.name, O_RDONLY));
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_QUIESCED);

	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, id), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_DEGRADED);
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_DEGRADED);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_EQ(st.state, RMEM_STATE_DEGRADED);
	EXPECT_EQ(st.daemon_pid, getpid());

	ASSERT_RET(chan_state(&c, id, RMEM_STATE_ACTIVE, ""), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_ACTIVE);
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_ACTIVE);
	EXPECT_STREQ(info.reason, "");

	ASSERT_RET(chan_state(&c, id, RMEM_STATE_DEGRADED, "server does not answer"), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_DEGRADED);
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_DEGRADED);
	EXPECT_STREQ(info.reason, "server does not answer");
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_STREQ(st.reason, "server does not answer");

	ASSERT_RET(chan_state(&c, id, RMEM_STATE_ACTIVE, ""), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_ACTIVE);
	chan_close(&c);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_QUIESCED);
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_QUIESCED);

	ASSERT_RET(chan_open(&c, 64), 0);
	ASSERT_RET(chan_serve(&c, id), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_DEGRADED);
	ASSERT_RET(chan_state(&c, id, RMEM_STATE_FAILED, "another store"), 0);
	expect_event(&nl, id, RMEM_EVENT_STATE, RMEM_STATE_FAILED);
	ASSERT_RET(region_info(fd, &info), 0);
	EXPECT_EQ(info.state, RMEM_STATE_FAILED);
	EXPECT_STREQ(info.reason, "another store");
	/* Final: no other state, and no other daemon changes it. */
	EXPECT(chan_state(&c, id, RMEM_STATE_ACTIVE, "") < 0);
	EXPECT_EQ(STAT(id, state), RMEM_STATE_FAILED);
	chan_close(&c);
	EXPECT_EQ(STAT(id, state), RMEM_STATE_FAILED);
	ASSERT_RET(region_get(id, &st), 0);
	EXPECT_STREQ(st.reason, "another store");

	close(fd);
	EXPECT_RET(region_del(id), 0);
	do {
		__u32 event, of, state;

		ASSERT_EQ(nl_event(&nl, 20000, &event, &of, &state), 1);
		if (of == id && event == RMEM_EVENT_DEL)
			break;
		EXPECT_EQ(event, RMEM_EVENT_STATE);
	} while (1);
	nl_close(&nl);
}

TEST(timeout_event)
{
	struct region_conf conf = plain;
	__u32 event, of, state;
	struct nl nl;
	struct fix f;

	conf.fault_ms = 200;
	conf.on_loss = RMEM_ON_LOSS_ERROR;
	ASSERT_RET(nl_open(&nl), 0);
	ASSERT_RET(nl_listen(&nl), 0);
	start(&f, &conf);
	MINI_SET(f.m, fetch_mode, MINI_HOLD);
	EXPECT_RET(try_read(f.map, NULL, NULL), -EFAULT);
	do {
		ASSERT_EQ(nl_event(&nl, 20000, &event, &of, &state), 1);
	} while (of != f.id || event != RMEM_EVENT_TIMEOUT);
	nl_close(&nl);
	stop(&f);
}

/* The daemon serves, the store is out of reach: faults wait, nothing fails. */
TEST(degraded_waits)
{
	struct reader r[4];
	struct fix f;

	start(&f, &plain);
	EXPECT_EQ(pattern_diff(f.map + 8 * CHUNK, 8 * CHUNK, CHUNK), -1);
	MINI_SET(f.m, fetch_mode, MINI_HOLD);
	ASSERT_RET(mini_state(f.m, f.id, RMEM_STATE_DEGRADED), 0);
	readers_start(r, 4, &f);
	ASSERT_SOON(STAT(f.id, waiting) == 4);
	EXPECT_EQ(pattern_diff(f.map + 8 * CHUNK, 8 * CHUNK, CHUNK), -1);
	stamp(f.map + 8 * CHUNK, 5);
	EXPECT(STAYS_MS(STAT(f.id, waiting) == 4, 200));
	MINI_SET(f.m, fetch_mode, MINI_OK);
	ASSERT_RET(mini_state(f.m, f.id, RMEM_STATE_ACTIVE), 0);
	readers_join(r, 4);
	EXPECT_RET(SYS(fsync(f.fd)), 0);
	EXPECT(stamped(f.store + 8 * CHUNK, 5));
	stop(&f);
}

static void *sigbus_thread(void *arg)
{
	EXPECT_RET(try_read(arg, NULL, NULL), -EFAULT);
	return NULL;
}

TEST(failed)
{
	struct region_conf conf = plain;
	pthread_t t, reader;
	struct fix f;
	void *ret;
	char c;

	for (conf.order = 0; conf.order <= 4; conf.order += 4) {
		context("order %d", conf.order);
		start(&f, &conf);
		ASSERT_RET(fix_quiet(&f), 0);
		EXPECT_EQ(pattern_diff(f.map, 0, CHUNK), -1);
		stamp(f.map + PAGE, 1);
		stamp(f.map + 2 * PAGE, 2);
		MINI_SET(f.m, fetch_mode, MINI_HOLD);
		MINI_SET(f.m, write_mode, MINI_HOLD);
		/* One write under way, one fetch waited for. */
		ASSERT_EQ(pthread_create(&t, NULL, fsync_thread, &f), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 1);
		ASSERT_EQ(pthread_create(&reader, NULL, sigbus_thread, f.map + CHUNK), 0);
		ASSERT_SOON(MINI_GET(f.m, held) == 2);
		ASSERT_RET(mini_state(f.m, f.id, RMEM_STATE_FAILED), 0);
		pthread_join(reader, NULL);
		pthread_join(t, &ret);
		EXPECT_RET((long)ret, -ESTALE);

		EXPECT_RET(try_read(f.map + 3 * CHUNK, NULL, NULL), -EFAULT);
		EXPECT_RET(try_write(f.map + 4 * CHUNK, 1, NULL), -EFAULT);
		EXPECT_RET(SYS(pread(f.fd, &c, 1, 5 * CHUNK)), -ESTALE);
		EXPECT_RET(SYS(pwrite(f.fd, &c, 1, 5 * CHUNK)), -ESTALE);
		EXPECT_RET(SYS(fsync(f.fd)), -ESTALE);
		EXPECT(region_punch(f.fd, 0, PAGE) < 0);
		/* What is here: readable, writable, kept. */
		EXPECT(stamped(f.map + PAGE, 1));
		EXPECT(stamped(f.map + 2 * PAGE, 2));
		EXPECT_EQ(pattern_diff(f.map, 0, PAGE), -1);
		EXPECT_EQ(pattern_diff(f.map + 3 * PAGE, 3 * PAGE, CHUNK - 3 * PAGE), -1);
		EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
		EXPECT_EQ(STAT(f.id, writeback), 0);
		stamp(f.map + PAGE, 3);
		EXPECT(stamped(f.map + PAGE, 3));
		EXPECT_RET(region_drop(f.fd, 0, 0), 0);
		EXPECT(stamped(f.map + PAGE, 3));
		EXPECT_EQ(STAT(f.id, dirty), 2 * PAGE);
		EXPECT_EQ(pattern_diff(f.store, 0, SIZE), -1);
		mini_kill(f.m);
		EXPECT_EQ(STAT(f.id, state), RMEM_STATE_FAILED);
		EXPECT(stamped(f.map + PAGE, 3));
		munmap(f.map, SIZE);
		close(f.fd);
		EXPECT_RET(region_del(f.id), -EBUSY);
		EXPECT_RET(region_del_force(f.id, NULL), 0);
	}
}

/*
 * The ring
 */

#define MANY 200

struct many {
	struct fix *f;
	int page;
};

static void *many_thread(void *arg)
{
	struct many *m = arg;

	EXPECT_EQ(pattern_diff(m->f->map + m->page * PAGE, m->page * PAGE, PAGE), -1);
	return NULL;
}

/* 64 entries, 200 chunks wanted at once, and a daemon that takes its time. */
TEST(ring_full)
{
	struct region_conf conf = {
		.size = MANY * PAGE, .chunk = PAGE, .order = 0,
		.name = region_fresh_name(),
	};
	static struct many many[MANY];
	static pthread_t t[MANY];
	pthread_attr_t small;
	struct fix f = { 0 };
	pthread_t sync;
	void *ret;
	int i;

	f.m = mini_new();
	f.m->ring_entries = 64;
	ASSERT_RET(mini_add(f.m, &conf), 0);
	ASSERT_RET(mini_start(f.m), 0);
	f.id = f.m->regions[0].id;
	f.fd = ASSERT_OK(region_open(conf.name, O_RDWR));
	f.size = conf.size;
	f.store = f.m->regions[0].store;
	f.map = mmap(NULL, f.size, PROT_READ | PROT_WRITE, MAP_SHARED, f.fd, 0);
	ASSERT(f.map != MAP_FAILED);

	ASSERT_RET(mini_stall(f.m), 0);
	pthread_attr_init(&small);
	pthread_attr_setstacksize(&small, 65536);
	for (i = 0; i < MANY; i++) {
		many[i] = (struct many){ &f, i };
		ASSERT_EQ(pthread_create(&t[i], &small, many_thread, &many[i]), 0);
	}
	ASSERT_SOON(STAT(f.id, waiting) == MANY);
	MINI_SET(f.m, stall, 0);
	for (i = 0; i < MANY; i++)
		pthread_join(t[i], NULL);
	EXPECT_EQ(MINI_GET(f.m, fetches), MANY);
	for (i = 0; i < MANY; i++)
		EXPECT_EQ(mini_logged(f.m, RMEM_OP_FETCH, i * PAGE, PAGE), 1);
	/* And the other way: as many writes. */
	ASSERT_RET(mini_stall(f.m), 0);
	for (i = 0; i < MANY; i++)
		stamp(f.map + i * PAGE, i);
	ASSERT_EQ(pthread_create(&sync, NULL, fsync_thread, &f), 0);
	ASSERT_SOON(STAT(f.id, writeback) > 64 * PAGE);
	MINI_SET(f.m, stall, 0);
	pthread_join(sync, &ret);
	EXPECT_RET((long)ret, 0);
	for (i = 0; i < MANY; i++)
		EXPECT(stamped(f.store + i * PAGE, i));
	stop(&f);
}

/* Killed with a full ring and more behind it. */
TEST(ring_full_and_killed)
{
	struct region_conf conf = {
		.size = 200 * PAGE, .chunk = PAGE, .order = 0,
	};
	struct fix f;

	start(&f, &conf);
	mini_kill(f.m);
	f.m->ring_entries = 64;
	f.m->stall = 1;
	ASSERT_RET(mini_start(f.m), 0);
	EXPECT_RET(mini_prefetch(f.m, f.id, 0, conf.size), 200);
	mini_kill(f.m);
	f.m->stall = 0;
	ASSERT_RET(mini_start(f.m), 0);
	EXPECT_EQ(pattern_diff(f.map, 0, conf.size), -1);
	/* Some are wanted before they come: those are published once more. */
	EXPECT_LE(MINI_GET(f.m, prefetches), 200);
	stop(&f);
}

TEST(poll_says_when)
{
	struct rmem_request q;
	struct pollfd p;
	struct raw r;
	pthread_t t;

	raw_start(&r, &plain);
	p.fd = r.c.fd;
	p.events = POLLIN;
	EXPECT_EQ(poll(&p, 1, 0), 0);
	ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
	EXPECT_EQ(poll(&p, 1, 20000), 1);
	EXPECT_EQ(p.revents & (POLLIN | POLLERR | POLLHUP), POLLIN);
	next(&r, &q, RMEM_OP_FETCH);
	EXPECT_EQ(poll(&p, 1, 0), 0);
	pattern_fill(buf, 0, CHUNK);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, buf, 0), 0);
	pthread_join(t, NULL);
	raw_stop(&r);
}

TEST(garbage_in_the_ring_header)
{
	/* More unread entries than there are: below 2^32 - 64 */
	static const __u32 tails[] = { 1, 64, 65, 12345, 0x7fffffff, 0x80000000, -65u };
	struct rmem_request q;
	struct raw r;
	pthread_t t;
	size_t i;

	raw_start(&r, &plain);
	for (i = 0; i < ARRAY_SIZE(tails); i++) {
		context("tail %u", tails[i]);
		/* Nonsense: nothing is published while it stands. */
		__atomic_store_n(&r.c.ring->tail, r.c.tail + tails[i], __ATOMIC_RELEASE);
		ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
		ASSERT_SOON(STAT(r.id, waiting) == 1);
		EXPECT_EQ(__atomic_load_n(&r.c.ring->head, __ATOMIC_ACQUIRE), r.c.tail);
		__atomic_store_n(&r.c.ring->tail, r.c.tail, __ATOMIC_RELEASE);
		next(&r, &q, RMEM_OP_FETCH);
		pattern_fill(buf, 0, CHUNK);
		EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, buf, 0), 0);
		pthread_join(t, NULL);
		EXPECT_RET(region_drop(r.fd, 0, 0), 0);
	}
	/* The rest of the header is nothing that the kernel believes. */
	context("all of it");
	r.c.ring->magic = ~0u;
	r.c.ring->entries = ~0u;
	r.c.ring->entry_bytes = ~0u;
	r.c.ring->entries_offset = 0x7ffffff0;
	r.c.ring->head = 0x80000000;
	ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &r), 0);
	ASSERT_SOON(STAT(r.id, waiting) == 1);
	r.c.ring->entries_offset = PAGE;
	next(&r, &q, RMEM_OP_FETCH);
	EXPECT_RET(chan_fill(&r.c, q.cookie, 0, CHUNK, buf, 0), 0);
	pthread_join(t, NULL);
	context(" ");
	raw_stop(&r);
}

TEST(ring_mapping)
{
	struct chan c;
	void *p;

	ASSERT_RET(chan_open(&c, 64), 0);
	context("longer");
	EXPECT_RET(SYS(mmap(NULL, c.bytes + PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    c.fd, 0)), -EINVAL);
	context("shorter");
	EXPECT_RET(SYS(mmap(NULL, c.bytes - PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    c.fd, 0)), -EINVAL);
	context("offset");
	EXPECT_RET(SYS(mmap(NULL, c.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, c.fd,
			    PAGE)), -EINVAL);
	context("private");
	EXPECT_RET(SYS(mmap(NULL, c.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE, c.fd,
			    0)), -EINVAL);
	context("executable");
	EXPECT(mmap(NULL, c.bytes, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_SHARED, c.fd,
		    0) == MAP_FAILED);
	context("executable later");
	EXPECT(mprotect(c.ring, c.bytes, PROT_READ | PROT_EXEC) < 0);
	context("grown");
	p = mremap(c.ring, c.bytes, c.bytes + PAGE, MREMAP_MAYMOVE);
	EXPECT(p == MAP_FAILED);
	context("read and write");
	EXPECT_EQ(SYS(read(c.fd, buf, 64)) < 0, 1);
	EXPECT_EQ(SYS(write(c.fd, buf, 64)) < 0, 1);
	context(" ");
	/* Still good. */
	EXPECT_EQ(c.ring->magic, RMEM_RING_MAGIC);
	chan_close(&c);
}

/* Two daemons, two regions each: nobody gets what is not his. */
TEST(daemons_do_not_mix)
{
	struct rmem_request q;
	struct raw a, b;
	pthread_t t;

	raw_start(&a, &plain);
	raw_start(&b, &plain);
	ASSERT_EQ(pthread_create(&t, NULL, raw_reader, &a), 0);
	next(&a, &q, RMEM_OP_FETCH);
	EXPECT_EQ(q.region_id, a.id);
	EXPECT_EQ(chan_next(&b.c, &q, 0), 0);
	/* A cookie is its channel's alone. */
	pattern_fill(buf, 0, CHUNK);
	memset(buf + CHUNK, 0, CHUNK);
	EXPECT_RET(chan_fill(&b.c, q.cookie, 0, CHUNK, buf + CHUNK, 0), -ENOENT);
	EXPECT_RET(chan_complete(&b.c, &q.cookie, 1, EIO), 1);
	EXPECT_RET(chan_serve(&b.c, a.id), -EBUSY);
	EXPECT_RET(chan_fill(&a.c, q.cookie, 0, CHUNK, buf, 0), 0);
	pthread_join(t, NULL);
	raw_stop(&b);
	raw_stop(&a);
}

/*
 * A daemon that never sleeps answers a request the moment it is there.
 */

#define QUICK_PAGES 64
#define QUICK_ROUNDS 6

struct quick {
	struct raw r;
	int stop;
	int fetches, writes;
};

static void *quick_thread(void *arg)
{
	static unsigned char page[PAGE];
	struct quick *q = arg;
	struct rmem_request req;
	struct rmem_run run;
	__u64 n;

	while (!__atomic_load_n(&q->stop, __ATOMIC_RELAXED)) {
		if (!chan_next(&q->r.c, &req, 0))
			continue;
		if (req.op == RMEM_OP_FETCH) {
			pattern_fill(page, req.offset, PAGE);
			EXPECT_RET(chan_fill(&q->r.c, req.cookie, 0, PAGE, page, 0), 0);
			q->fetches++;
		} else {
			EXPECT_RET(chan_writeout(&q->r.c, req.cookie, page, PAGE,
						 &run, 1, &n), 1);
			EXPECT_RET(chan_complete(&q->r.c, &req.cookie, 1, 0), 0);
			q->writes++;
		}
	}
	return NULL;
}

TEST(quick_answers)
{
	struct region_conf conf = {
		.size = QUICK_PAGES * PAGE, .chunk = PAGE, .order = 0,
	};
	struct quick q = { .stop = 0 };
	pthread_t t;
	int i, round;

	raw_start(&q.r, &conf);
	ASSERT_EQ(pthread_create(&t, NULL, quick_thread, &q), 0);
	for (round = 0; round < QUICK_ROUNDS; round++) {
		for (i = 0; i < QUICK_PAGES; i++)
			EXPECT_EQ(peek(q.r.map + i * PAGE), pattern(i * PAGE));
		/* The same bytes again, so that the next round finds them. */
		for (i = 0; i < QUICK_PAGES; i++)
			poke(q.r.map + i * PAGE, pattern(i * PAGE));
		EXPECT_RET(SYS(fsync(q.r.fd)), 0);
		EXPECT_RET(region_drop(q.r.fd, 0, 0), 0);
	}
	__atomic_store_n(&q.stop, 1, __ATOMIC_RELAXED);
	pthread_join(t, NULL);
	EXPECT_GE(q.fetches, QUICK_ROUNDS * QUICK_PAGES);
	EXPECT_GE(q.writes, QUICK_ROUNDS * QUICK_PAGES);
	munmap(q.r.map, conf.size);
	close(q.r.fd);
	chan_close(&q.r.c);
	EXPECT_RET(region_del(q.r.id), 0);
}

/*
 * Answers that race with each other, and with the end of the channel
 */

struct answer {
	struct chan *c;
	__u64 cookie;
	int how;
	int *go;
};

static void *answer_thread(void *arg)
{
	static unsigned char page[CHUNK];
	struct answer *a = arg;
	struct rmem_run runs[16];
	__u64 n;

	while (!__atomic_load_n(a->go, __ATOMIC_ACQUIRE))
		;
	switch (a->how) {
	case 0:
		chan_fill(a->c, a->cookie, 0, CHUNK, buf, 0);
		break;
	case 1:
		chan_complete(a->c, &a->cookie, 1, EIO);
		break;
	case 2:
		chan_fill(a->c, a->cookie, 0, PAGE, buf, 0);
		chan_fill(a->c, a->cookie, PAGE, CHUNK - PAGE, buf + PAGE, 0);
		break;
	case 3:
		chan_writeout(a->c, a->cookie, page, CHUNK, runs, 16, &n);
		break;
	case 4:
		chan_complete(a->c, &a->cookie, 1, 0);
		break;
	case 5:
		chan_complete(a->c, &a->cookie, 1, EAGAIN);
		break;
	}
	return NULL;
}

static void race(struct chan *c, __u64 cookie, int how_a, int how_b)
{
	int go = 0;
	struct answer a = { c, cookie, how_a, &go }, b = { c, cookie, how_b, &go };
	pthread_t ta, tb;

	ASSERT_EQ(pthread_create(&ta, NULL, answer_thread, &a), 0);
	ASSERT_EQ(pthread_create(&tb, NULL, answer_thread, &b), 0);
	__atomic_store_n(&go, 1, __ATOMIC_RELEASE);
	pthread_join(ta, NULL);
	pthread_join(tb, NULL);
}

static void *try_first_chunk(void *arg)
{
	struct raw *r = arg;
	unsigned char v;

	/* All of the bytes or none. */
	if (!try_read(r->map + CHUNK - 1, &v, NULL)) {
		EXPECT_EQ(v, pattern(CHUNK - 1));
		EXPECT_EQ(pattern_diff(r->map, 0, CHUNK), -1);
	}
	return NULL;
}

static void *raw_try(void *arg)
{
	struct raw *r = arg;

	while (try_read(r->map, NULL, NULL))
		nap();
	return NULL;
}

static void answer_well(struct raw *r, const struct rmem_request *q)
{
	if (q->op == RMEM_OP_FETCH)
		chan_fill(&r->c, q->cookie, 0, CHUNK, buf, 0);
	else
		chan_complete(&r->c, &q->cookie, 1, 0);
}

/* Until the thread ends: whatever the mixture left undone. */
static void answer_until(struct raw *r, pthread_t t, void **ret)
{
	struct rmem_request q;

	while (pthread_tryjoin_np(t, ret)) {
		if (chan_next(&r->c, &q, 0))
			answer_well(r, &q);
		else
			nap();
	}
}

TEST(answers_race)
{
	static const int fetch[][2] = { { 0, 1 }, { 0, 0 }, { 0, 2 }, { 2, 1 }, { 2, 2 } };
	static const int write[][2] = { { 3, 4 }, { 3, 5 }, { 4, 5 }, { 3, 3 } };
	struct rmem_request q;
	bool over, asked;
	int i, raced = 0;
	struct raw r;
	pthread_t t;
	void *ret;

	raw_start(&r, &plain);
	pattern_fill(buf, 0, CHUNK);
	for (i = 0; i < 100; i++) {
		over = asked = false;
		ASSERT_EQ(pthread_create(&t, NULL, try_first_chunk, &r), 0);
		/* A fault may still hear of the last round's error. */
		ASSERT_SOON((asked = chan_next(&r.c, &q, 0)) ||
			    (over = !pthread_tryjoin_np(t, NULL)));
		if (asked) {
			race(&r.c, q.cookie, fetch[i % 5][0], fetch[i % 5][1]);
			/* Two halves of two threads may both have been refused. */
			chan_complete(&r.c, &q.cookie, 1, EIO);
			raced++;
		}
		if (!over)
			answer_until(&r, t, NULL);
		ASSERT_RET(region_drop(r.fd, 0, 0), 0);
	}
	EXPECT_GE(raced, 50);
	ASSERT_EQ(pthread_create(&t, NULL, raw_try, &r), 0);
	answer_until(&r, t, NULL);
	raced = 0;
	for (i = 0; i < 100; i++) {
		poke(r.map, i);
		ASSERT_RET(chan_push(&r.c, r.id), 0);
		if (!chan_next(&r.c, &q, 0))
			continue;
		raced++;
		race(&r.c, q.cookie, write[i % 4][0], write[i % 4][1]);
		chan_complete(&r.c, &q.cookie, 1, 0);
	}
	EXPECT_GE(raced, 50);
	ASSERT_EQ(pthread_create(&t, NULL, raw_fsync, &r), 0);
	answer_until(&r, t, &ret);
	EXPECT_RET((long)ret, 0);
	raw_stop(&r);
}
