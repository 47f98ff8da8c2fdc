/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two daemons for tests.
 *
 * A struct chan is a bare channel in the test's own process: every request and
 * every answer is the test's business.
 *
 * A struct mini is a daemon of its own process, which serves its regions from
 * memory and behaves as its knobs say. All of the struct is shared with that
 * process: the test turns knobs and reads counters while it runs. The store,
 * counters and log outlive the process, so a successor goes on where it died.
 */
#ifndef SELFTEST_MINISERVE_H
#define SELFTEST_MINISERVE_H

#include "region.h"

/*
 * A bare channel
 */

struct chan {
	int fd;
	struct rmem_ring_header *ring;
	size_t bytes;
	__u32 entries;
	__u32 tail;
	__u32 generation;
};

int chan_open(struct chan *c, __u32 entries);
void chan_close(struct chan *c);
int chan_serve(struct chan *c, __u32 id);
int chan_push(struct chan *c, __u32 id);
int chan_state(struct chan *c, __u32 id, __u32 state, const char *reason);
/* Next request within @ms: 1, or 0 if none came. */
int chan_next(struct chan *c, struct rmem_request *r, int ms);
int chan_fill(struct chan *c, __u64 cookie, __u64 offset, __u64 length,
	      const void *addr, __u32 flags);
/* @received: bytes taken, whatever the result; may be NULL */
int chan_receive(struct chan *c, __u64 cookie, __u64 offset, __u64 length, int fd,
		 __u32 flags, __u32 checksum, __u64 *received);
int chan_lane(struct chan *c, struct rmem_ioc_lane *lane);
/* Ends it. */
int chan_end_lane(struct chan *c, __u32 id);
/* The number of cookies that were unknown. */
int chan_complete(struct chan *c, const __u64 *cookies, __u32 count, __u32 error);
/* The number of runs. */
int chan_writeout(struct chan *c, __u64 cookie, void *buf, __u64 bytes,
		  struct rmem_run *runs, __u32 room, __u64 *copied);
/* The number of runs. */
int chan_runs(struct chan *c, __u64 cookie, struct rmem_write_run *runs, __u32 room);
/* @sent: bytes gone, whatever the result; may be NULL */
int chan_send(struct chan *c, __u32 id, __u64 offset, __u64 length, int fd, __u64 *sent);
int chan_prefetch(struct chan *c, __u32 id, __u32 flags, __u64 offset, __u64 length);

/*
 * A daemon
 */

#define MINI_REGIONS 64
#define MINI_LOG 16384

enum mini_mode {
	MINI_OK,	/* answer */
	MINI_HOLD,	/* keep what comes, until the mode is another one */
	MINI_FAIL,	/* COMPLETE with the errno */
	MINI_HOLD_ZERO,	/* of writes, those that zero */
};

/* What has been asked of it, in order. */
struct mini_log {
	__u8 op;	/* enum rmem_op, or MINI_RUN */
	__u8 flags;
	__u32 region_id;
	__u32 tid;
	__u64 offset;
	__u64 length;
	__u64 demand;
	__u64 cookie;
};

/* A run of bytes of the RMEM_OP_WRITE before it in the log. */
#define MINI_RUN 100

struct mini_region {
	__u32 id;
	__u64 size;
	unsigned char *store;
	char name[RMEM_NAME_SIZE];
};

struct mini {
	pid_t pid;
	__u32 ring_entries;
	int started;	/* 1, or -errno */
	int nr_regions;
	struct mini_region regions[MINI_REGIONS];

	/* knobs */
	int fetch_mode;
	int fetch_errno;
	int fetch_delay_ms;
	__u32 fetch_piece;	/* bytes per FILL; 0: all at once */
	int write_mode;		/* RMEM_OP_WRITE and RMEM_OP_ZERO */
	int write_errno;
	int write_fails;	/* so many, then MINI_OK; < 0: for ever */
	int write_release;	/* so many in spite of MINI_HOLD */
	int stall;		/* do not look at the ring */
	__u32 prefetch_flags;

	/* counters */
	__u64 fetches, fetch_bytes, prefetches, again, filled;
	__u64 writes, write_bytes, runs, syncs, zeros, zero_bytes, hits;
	__u64 nomem;		/* FILLs to be repeated */
	__u64 unknown;		/* cookies nobody knows any more */
	__u64 held;		/* requests without an answer */
	__u64 trouble;		/* calls that failed otherwise; see diag */
	int trouble_errno;
	char trouble_call[32];

	/* one call at a time on its behalf: mini_call() */
	int call, call_ret;
	__u32 call_id, call_state;
	__u64 call_offset, call_length;

	__u32 nlog;
	struct mini_log log[MINI_LOG];
};

/* A knob or a counter, seen now */
#define MINI_GET(m, field) __atomic_load_n(&(m)->field, __ATOMIC_SEQ_CST)
#define MINI_SET(m, field, v) __atomic_store_n(&(m)->field, (v), __ATOMIC_SEQ_CST)

struct mini *mini_new(void);
/* Makes a region with a store full of the pattern. */
int mini_add(struct mini *m, const struct region_conf *c);
/* Starts a process that serves all regions; also after the last one's death. */
int mini_start(struct mini *m);
/* SIGKILL; its process is gone when this returns. */
void mini_kill(struct mini *m);
/* What it answers from now on, it answers by the knobs as they are now. */
int mini_settle(struct mini *m);
/* It takes nothing from the ring from now on, until @stall is 0. */
int mini_stall(struct mini *m);
int mini_push(struct mini *m, __u32 id);
int mini_state(struct mini *m, __u32 id, __u32 state);
int mini_prefetch(struct mini *m, __u32 id, __u64 offset, __u64 length);
void mini_log_clear(struct mini *m);
/* Log entries of that kind that touch the range. */
int mini_logged(struct mini *m, int op, __u64 offset, __u64 length);
/* Bytes of such entries. */
__u64 mini_logged_bytes(struct mini *m, int op);

/*
 * One daemon, one region, one mapping of all of it: what most tests want.
 * Everything ASSERTed.
 */
struct fix {
	struct mini *m;
	__u32 id;
	char name[RMEM_NAME_SIZE];
	size_t size;
	unsigned char *store;
	int fd;
	unsigned char *map;
};

int fix_start(struct fix *f, const struct region_conf *c);
/*
 * Dirty pages are pushed in the background as the kernel pleases, but not while
 * the region is DEGRADED: for tests that count. The daemon answers as ever.
 */
int fix_quiet(struct fix *f);
/* What is dirty goes out as by RMEM_IOC_PUSH; then it is quiet again. */
int fix_push(struct fix *f);
/*
 * Bytes that are not durable. A page that is written again while it is being
 * written is one of these, but both "dirty" and "writeback".
 */
long long fix_at_risk(const struct fix *f);
/* Bytes that are dirty or being written, or -1. */
long long fix_unclean(const struct fix *f);
/* Unmaps, closes, syncs and deletes: 0 if all of that works. */
int fix_stop(struct fix *f);

/* With harness.h. Pages alone, and folios of a whole chunk. */
#define for_each_order(conf)						\
	for ((conf).order = 0;						\
	     (conf).order <= 4 && (context("order %d", (conf).order), 1); \
	     (conf).order += 4)

#endif /* SELFTEST_MINISERVE_H */
