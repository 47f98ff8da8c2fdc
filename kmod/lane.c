// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lanes: the thread that misses a chunk asks for it, on a socket that the daemon
 * lends (RMEM_IOC_LANE), and takes the answer.
 *
 * The daemon says what a message looks like and where in it the three numbers of
 * a request belong; what they mean there is not known here. What cannot be sent is the
 * daemon's business, as if there were no lane.
 *
 * Answers: all who have asked, and wait, are the region's takers. For each arrival one of
 * them is woken, the one that has waited longest. He takes what is there, for whomever,
 * until his own request is over, and has the next one woken if that was not all. How far a
 * message has come, the lane knows, not the taker; so he may go at any time. The
 * last one to go, and whoever finds what he does not understand, leaves the socket to
 * the daemon, who reads on from where the lane says. So for as long as something
 * is outstanding there is a taker, or the daemon has been told.
 *
 * The socket is used by tasks that know nothing of it, in the middle of whatever
 * they do. So nothing here waits for it: not for room, not for its lock, not for
 * memory that would have to be cleaned first. No security module is asked what the
 * task thinks of the socket: it is the daemon's, in the daemon's network namespace
 * and at its expense.
 */
#include <linux/crc32c.h>
#include <linux/delay.h>
#include <linux/file.h>
#include <linux/net.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>
#include <net/tcp.h>

#include "internal.h"
#include "trace.h"

/* How often to look whether a socket's lock is free, and how far apart. */
#define LANE_TRIES 10
#define LANE_PAUSE_US 50

/* What an answer looks like. */
struct answer_form {
	u32 bytes;			/* of its header */
	u16 cookie_at;
	u16 offset_at;
	u16 length_at;
	u16 payload_at;
	u16 sum_at;
	u16 checksum_at;
	u8 same[RMEM_LANE_MESSAGE_MAX];
	u8 mask[RMEM_LANE_MESSAGE_MAX];	/* of what is the same in each */
};

/* The answer that comes now: so far. */
struct answer {
	u32 bytes;			/* of its header */
	u8 header[RMEM_LANE_MESSAGE_MAX];
	struct rmem_req *req;		/* whose it is, once that is known */
	u64 taken;			/* of the payload */
	bool damaged;
};

/*
 * struct rmem_lane - a socket lent to those who wait
 *
 * Referenced by its region while it may be used, and by whoever is using it. The
 * region outlives that.
 */
struct rmem_lane {
	struct kref ref;
	struct rmem_region *region;
	u32 number;			/* the daemon's, for the ring */
	u32 generation;			/* of the channel */
	struct socket *sock;		/* its file is held until stopped */
	struct work_struct cut_work;
	bool takes;			/* answers; fixed once it is a region's */
	u32 at_once;			/* requests under way at most, or 0; fixed */
	struct answer_form form;	/* fixed */
	wait_queue_entry_t arrival;	/* in the socket's wait queue, if it does */

	/* region->lock */
	bool left;			/* the socket, to the daemon: nothing is taken any more */
	struct rmem_note note;

	struct mutex answer_mutex;	/* of what follows; killable, its holder waits for nobody */
	struct answer answer;

	struct mutex mutex;		/* of what follows; killable, held for one message */
	bool stopped;
	bool cut;			/* part of a message is out: nothing may follow it */
	u32 message_bytes;
	u16 cookie_at;
	u16 offset_at;
	u16 length_at;
	u16 checksum_at;
	u8 message[RMEM_LANE_MESSAGE_MAX];
};

static void answer_over(struct answer *answer)
{
	if (answer->req)
		rmem_request_put(answer->req);
	answer->req = NULL;
	answer->bytes = 0;
	answer->taken = 0;
	answer->damaged = false;
}

static void lane_free(struct kref *ref)
{
	struct rmem_lane *lane = container_of(ref, struct rmem_lane, ref);

	answer_over(&lane->answer);
	kfree(lane);
}

static void lane_put(struct rmem_lane *lane)
{
	kref_put(&lane->ref, lane_free);
}

/* In a context that may wait for the socket's lock. */
static void lane_cut(struct work_struct *work)
{
	struct rmem_lane *lane = container_of(work, struct rmem_lane, cut_work);

	kernel_sock_shutdown(lane->sock, SHUT_RDWR);
}

/*
 * lock_sock(), unless it would wait for long. Its owner may be in the middle of a
 * copy to user space, which is as slow as that program likes.
 */
static bool lane_lock_sock(struct sock *sk)
{
	int i;

	for (i = 0; i < LANE_TRIES; i++) {
		bool mine;

		spin_lock_bh(&sk->sk_lock.slock);
		mine = !sk->sk_lock.owned;
		if (mine) {
			sk->sk_lock.owned = 1;
			mutex_acquire(&sk->sk_lock.dep_map, 0, 1, _RET_IP_);
		}
		spin_unlock_bh(&sk->sk_lock.slock);
		if (mine)
			return true;
		if (fatal_signal_pending(current))
			break;
		usleep_range(LANE_PAUSE_US, 2 * LANE_PAUSE_US);
	}
	return false;
}

/* Bytes that the socket took, or an error. */
static int lane_send(struct rmem_lane *lane)
{
	struct kvec from = { lane->message, lane->message_bytes };
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
	const struct proto_ops *ops = READ_ONCE(lane->sock->ops);
	struct sock *sk = lane->sock->sk;
	int sent;

	iov_iter_kvec(&msg.msg_iter, ITER_SOURCE, &from, 1, from.iov_len);
	/* a unix socket is not locked by whoever sends or receives */
	if (!sk_is_tcp(sk))
		return ops->sendmsg(lane->sock, &msg, from.iov_len);
	if (!lane_lock_sock(sk))
		return -EBUSY;
	sent = ops->sendmsg_locked(sk, &msg, from.iov_len);
	release_sock(sk);
	return sent;
}

static void lane_put_number(struct rmem_lane *lane, u16 at, u64 number)
{
	__le64 bytes = cpu_to_le64(number);

	memcpy(lane->message + at, &bytes, sizeof(bytes));
}

static void lane_write_message(struct rmem_lane *lane, const struct rmem_req *req)
{
	u16 end = lane->checksum_at;
	__le32 sum;

	lane_put_number(lane, lane->cookie_at, (u64)lane->generation << 32 | req->id);
	lane_put_number(lane, lane->offset_at, req->offset);
	lane_put_number(lane, lane->length_at, req->length);
	if (!end)
		return;
	sum = cpu_to_le32(~crc32c(~0, lane->message, end));
	memcpy(lane->message + end, &sum, sizeof(sum));
}

/* False: not a byte of it is out. */
static bool lane_ask(struct rmem_lane *lane, const struct rmem_req *req)
{
	bool out = false;
	unsigned int noio;
	int sent;

	if (mutex_lock_killable(&lane->mutex))
		return false;
	if (lane->stopped || lane->cut)
		goto unlock;
	lane_write_message(lane, req);
	/* whatever the task holds, reclaim in the socket's name shall not need it */
	noio = memalloc_noio_save();
	sent = lane_send(lane);
	memalloc_noio_restore(noio);
	out = sent > 0;
	if (out && sent < lane->message_bytes) {
		/* the daemon sees the connection end, and asks again for all of it */
		lane->cut = true;
		queue_work(system_wq, &lane->cut_work);
	}
unlock:
	mutex_unlock(&lane->mutex);
	return out;
}

/*
 * Taking
 */

static int lane_copy(read_descriptor_t *desc, struct sk_buff *skb, unsigned int offset, size_t len)
{
	struct iov_iter *to = desc->arg.data;
	size_t bytes = min(len, iov_iter_count(to));

	if (bytes && skb_copy_datagram_iter(skb, offset, to, bytes))
		return -EFAULT;
	desc->count = iov_iter_count(to);
	return bytes;
}

/* Bytes that have come, or an error: EAGAIN, none; any other, and none will, this way. */
static int lane_take_bytes(struct rmem_lane *lane, struct iov_iter *to)
{
	read_descriptor_t desc = { .arg.data = to, .count = iov_iter_count(to) };
	struct sock *sk = lane->sock->sk;
	int got = -EPIPE;

	if (!lane_lock_sock(sk))
		return -EBUSY;
	/* kTLS would be put on top of it under this lock */
	if (!inet_csk_has_ulp(sk))
		got = tcp_read_sock(sk, &desc, lane_copy);
	/* urgent data may be in front of what there is */
	if (!got)
		got = sk->sk_shutdown & RCV_SHUTDOWN || sk->sk_err ||
		      !skb_queue_empty(&sk->sk_receive_queue) ? -EPIPE : -EAGAIN;
	release_sock(sk);
	return got;
}

static u64 answer_number(const struct answer *answer, u16 at)
{
	__le64 bytes;

	memcpy(&bytes, answer->header + at, sizeof(bytes));
	return le64_to_cpu(bytes);
}

static u32 answer_word(const struct answer *answer, u16 at)
{
	__le32 bytes;

	memcpy(&bytes, answer->header + at, sizeof(bytes));
	return le32_to_cpu(bytes);
}

/* Is the header, which is complete, that of an answer with bytes? */
static bool answer_is_one(const struct answer *answer, const struct answer_form *form)
{
	u32 i;

	for (i = 0; i < form->bytes; i++)
		if ((answer->header[i] ^ form->same[i]) & form->mask[i])
			return false;
	return !form->checksum_at ||
	       answer_word(answer, form->checksum_at) ==
	       ~crc32c(~0, answer->header, form->checksum_at);
}

/* The fetch that it answers, referenced, or NULL. */
static struct rmem_req *lane_find(struct rmem_lane *lane)
{
	const struct answer_form *form = &lane->form;
	const struct answer *answer = &lane->answer;
	struct rmem_req *req;
	u64 cookie;

	if (!answer_is_one(answer, form))
		return NULL;
	cookie = answer_number(answer, form->cookie_at);
	if (cookie >> 32 != lane->generation)
		return NULL;
	req = rmem_fetch_asked(lane->region, (u32)cookie, lane->number);
	if (req && answer_number(answer, form->offset_at) == req->offset &&
	    answer_number(answer, form->length_at) == req->length &&
	    answer_word(answer, form->payload_at) == req->length)
		return req;
	if (req)
		rmem_request_put(req);
	return NULL;
}

/* More of a header; what does not belong to an answer stays in the lane, for the daemon. */
static int lane_take_header(struct rmem_lane *lane)
{
	struct answer *answer = &lane->answer;
	struct kvec rest = { answer->header + answer->bytes, lane->form.bytes - answer->bytes };
	struct iov_iter to;
	int got;

	if (!rest.iov_len)
		return -EPROTO;
	iov_iter_kvec(&to, ITER_DEST, &rest, 1, rest.iov_len);
	got = lane_take_bytes(lane, &to);
	if (got < 0)
		return got;
	answer->bytes += got;
	if (answer->bytes < lane->form.bytes)
		return 0;
	answer->req = lane_find(lane);
	return answer->req ? 0 : -EPROTO;
}

static int lane_fill(struct rmem_lane *lane, struct rmem_req *req)
{
	struct answer *answer = &lane->answer;
	u16 sum_at = lane->form.sum_at;
	int err;

	/* fails if others have put bytes there meanwhile */
	err = rmem_fetch_seek(req, answer->taken, req->length - answer->taken);
	while (!err && answer->taken < req->length) {
		struct bio_vec space[RMEM_RECEIVE_BATCH];
		struct iov_iter to;
		unsigned int n, i;
		size_t bytes = 0;
		int got;

		n = rmem_receive_space(req, answer->taken, req->length, space);
		for (i = 0; i < n; i++)
			bytes += space[i].bv_len;
		iov_iter_bvec(&to, ITER_DEST, space, n, bytes);
		got = lane_take_bytes(lane, &to);
		if (got < 0)
			return got;
		answer->taken += got;
		req->fetch.cursor = answer->taken;
		atomic64_add(got, &req->region->received_bytes);
	}
	if (err)
		return err;
	err = rmem_receive_done(req, sum_at, sum_at ? answer_word(answer, sum_at) : 0, false);
	if (err == -EBADMSG) {
		answer->damaged = true;
		return err;
	}
	/* no room in the cgroup: the daemon knows what to do, and has to have the bytes for it */
	if (err)
		rmem_fetch_again(req);
	else
		atomic64_inc(&req->region->answered);
	answer_over(answer);
	return 0;
}

/* More of an answer, or an error: EAGAIN, no more is there; any other, it is the daemon's. */
static int lane_take(struct rmem_lane *lane)
{
	struct rmem_req *req = lane->answer.req;
	int err;

	if (!req)
		return lane_take_header(lane);
	if (!rmem_fetch_lock_asked(req, lane->number))
		return -ESTALE;
	kref_get(&req->ref);
	err = lane_fill(lane, req);
	rmem_fetch_unlock(req);
	return err;
}

/* Nothing is taken any more, and the daemon learns of it. */
static void lane_leave(struct rmem_lane *lane)
{
	struct rmem_region *region = lane->region;

	lockdep_assert_held(&region->lock);
	if (lane->left)
		return;
	WRITE_ONCE(lane->left, true);
	if (region->lane == lane)
		rmem_ring_note(region->channel, &lane->note);
}

/* The lane of which answers are taken, referenced, or NULL. */
static struct rmem_lane *lane_taken(struct rmem_region *region)
{
	struct rmem_lane *lane;

	spin_lock(&region->lock);
	lane = region->lane;
	if (lane && !lane->left)
		kref_get(&lane->ref);
	else
		lane = NULL;
	/* the next one to come says so again */
	if (!lane)
		WRITE_ONCE(region->answers, false);
	spin_unlock(&region->lock);
	return lane;
}

static bool request_is_over(const struct rmem_req *req)
{
	return READ_ONCE(req->state) == RMEM_REQ_DONE;
}

/* Takes what has come, until @own is over. */
static void lane_take_all(struct rmem_region *region, struct rmem_req *own)
{
	struct rmem_lane *lane = lane_taken(region);
	unsigned int noio;
	int err = 0;

	if (!lane)
		return;
	if (mutex_lock_killable(&lane->answer_mutex))
		goto put;
	WRITE_ONCE(region->answers, false);
	/* as with sending: whatever the task holds, memory shall not need it */
	noio = memalloc_noio_save();
	while (!err && !READ_ONCE(lane->left) && !request_is_over(own) &&
	       !fatal_signal_pending(current)) {
		err = lane_take(lane);
		cond_resched();
	}
	memalloc_noio_restore(noio);
	if (err && err != -EAGAIN) {
		spin_lock(&region->lock);
		lane_leave(lane);
		spin_unlock(&region->lock);
	} else if (!err && !READ_ONCE(lane->left) &&
		   !skb_queue_empty_lockless(&lane->sock->sk->sk_receive_queue)) {
		WRITE_ONCE(region->answers, true);
	}
	mutex_unlock(&lane->answer_mutex);
put:
	lane_put(lane);
}

/* In the socket's wait queue: something has come, or the connection has ended. */
static int lane_arrival(wait_queue_entry_t *entry, unsigned int mode, int sync, void *key)
{
	struct rmem_region *region = container_of(entry, struct rmem_lane, arrival)->region;
	__poll_t events = key_to_poll(key);

	if (events && !(events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
		return 0;
	WRITE_ONCE(region->answers, true);
	__wake_up_sync_key(&region->answer_wait, TASK_NORMAL, NULL);
	return 0;
}

/* Of a taker; one that is frozen will look once it is thawed, and another one now. */
static int taker_wake(wait_queue_entry_t *entry, unsigned int mode, int sync, void *key)
{
	struct task_struct *task = entry->private;
	int woken = autoremove_wake_function(entry, mode, sync, key);

	return woken && !(READ_ONCE(task->__state) & TASK_FROZEN);
}

/* As rmem_fetch_wait(), for one of the takers. */
static int taker_wait(const struct rmem_wait *wait, long timeout)
{
	struct rmem_req *req = wait->req;
	struct rmem_region *region = req->region;
	struct wait_queue_entry over, answer;
	int err = 0;

	init_wait_entry(&over, 0);
	init_wait_entry(&answer, 0);
	answer.func = taker_wake;
	for (;;) {
		prepare_to_wait(&req->wait, &over, RMEM_SLEEP);
		prepare_to_wait_exclusive(&region->answer_wait, &answer, RMEM_SLEEP);
		if (!rmem_fetch_waits(wait)) {
			err = rmem_request_error(req);
			break;
		}
		if (signal_pending_state(RMEM_SLEEP, current)) {
			err = -ERESTARTSYS;
			break;
		}
		if (READ_ONCE(region->answers)) {
			__set_current_state(TASK_RUNNING);
			lane_take_all(region, req);
			continue;
		}
		if (!timeout) {
			err = -ETIME;
			break;
		}
		timeout = schedule_timeout(timeout);
	}
	finish_wait(&region->answer_wait, &answer);
	finish_wait(&req->wait, &over);
	return err;
}

static void taker_goes(struct rmem_region *region)
{
	struct rmem_lane *lane;
	bool last;

	spin_lock(&region->lock);
	last = !--region->nr_takers;
	lane = region->lane;
	if (last && lane && (region->nr_asked || lane->answer.bytes))
		lane_leave(lane);
	spin_unlock(&region->lock);
	/* he may have been woken for it */
	if (!last && READ_ONCE(region->answers))
		wake_up(&region->answer_wait);
}

/*
 * Both
 */

/* Is it as far from the thread's last one as that was from the one before? */
static bool lane_jump(struct rmem_region *region, pgoff_t chunk, u32 tid)
{
	pgoff_t way;
	bool same;
	int i;

	for (i = 0; i < RMEM_STEPS && region->jumps[i].tid != tid; i++)
		;
	if (i == RMEM_STEPS) {
		i = region->next_jump++ % RMEM_STEPS;
		region->jumps[i].tid = tid;
		region->jumps[i].last = chunk;
		region->jumps[i].way = 0;
		return false;
	}
	way = chunk - region->jumps[i].last;
	same = way && way == region->jumps[i].way;
	region->jumps[i].last = chunk;
	region->jumps[i].way = way;
	return same;
}

/*
 * Is the chunk the next one of somebody who walks, or the first, where a walk begins? The
 * daemon may want to go ahead.
 */
static bool lane_step(struct rmem_region *region, pgoff_t chunk, u32 tid)
{
	bool jumps = lane_jump(region, chunk, tid);
	int i;

	lockdep_assert_held(&region->lock);
	for (i = 0; i < RMEM_STEPS; i++) {
		if (region->steps[i] == chunk) {
			region->steps[i]++;
			return true;
		}
	}
	region->steps[region->next_step++ % RMEM_STEPS] = chunk + 1;
	return jumps || !chunk;
}

/*
 * rmem_lane_get() - publish a fetch that the caller is about to ask for
 *
 * Return: a lane to pass to rmem_lane_wait(), once the caller holds no lock; NULL,
 * and nothing has been done: the daemon has to ask, who may have more connections.
 */
struct rmem_lane *rmem_lane_get(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	struct rmem_lane *lane = region->lane;

	lockdep_assert_held(&region->lock);
	if (!lane || (lane->at_once && region->nr_asked >= lane->at_once))
		return NULL;
	if (lane->takes)
		rmem_ring_miss(region->channel, req,
			       lane_step(region, req->chunk, req->fetch.tid));
	else if (!rmem_ring_ask(region->channel, req, lane->number))
		return NULL;
	WRITE_ONCE(req->fetch.lane, lane->number);
	region->nr_asked++;
	region->nr_takers++;
	kref_get(&lane->ref);
	return lane;
}

/*
 * rmem_lane_wait() - ask for what rmem_lane_get() has published, and wait for it
 *
 * As rmem_fetch_wait(). What cannot be asked for the daemon is told of.
 */
int rmem_lane_wait(struct rmem_wait *wait, long timeout)
{
	struct rmem_lane *lane = wait->ask;
	struct rmem_req *req = wait->req;
	struct rmem_region *region = req->region;
	bool asked = lane_ask(lane, req);
	int err;

	trace_rmem_request_asked(req, asked ? 0 : -EAGAIN);
	if (asked)
		atomic64_inc(&region->asked);
	else
		rmem_request_unasked(req, lane->generation);
	lane_put(lane);

	atomic_inc(&region->waiting);
	err = taker_wait(wait, timeout);
	atomic_dec(&region->waiting);
	taker_goes(region);
	return err;
}

/*
 * Nobody sends on it or takes from it any more, once it is not the region's.
 *
 * Waits for whoever is doing so, who waits for nobody.
 */
static void lane_stop(struct rmem_lane *lane)
{
	mutex_lock(&lane->mutex);
	lane->stopped = true;
	mutex_unlock(&lane->mutex);
	mutex_lock(&lane->answer_mutex);
	WRITE_ONCE(lane->left, true);
	mutex_unlock(&lane->answer_mutex);
	/* whoever lent it must not go on behind half a message */
	flush_work(&lane->cut_work);
	if (lane->takes)
		remove_wait_queue(sk_sleep(lane->sock->sk), &lane->arrival);
	sockfd_put(lane->sock);
}

/* The region has no lane any more; its reference is the caller's. */
static struct rmem_lane *lane_detach(struct rmem_region *region)
{
	struct rmem_lane *lane = region->lane;

	lockdep_assert_held(&region->lock);
	region->lane = NULL;
	if (lane)
		rmem_ring_unnote(region->channel, &lane->note);
	return lane;
}

/* Its daemon is gone, or the region: that is the end of its lane. */
void rmem_lane_end(struct rmem_region *region)
{
	struct rmem_lane *lane;

	spin_lock(&region->lock);
	lane = lane_detach(region);
	spin_unlock(&region->lock);
	if (!lane)
		return;
	lane_stop(lane);
	lane_put(lane);
}

/*
 * Lending
 */

struct field {
	unsigned int at, bytes;
};

/* None of them lies in another one's place, or beyond the end. */
static bool fields_are_valid(const struct field *fields, unsigned int count, u32 bytes)
{
	DECLARE_BITMAP(taken, RMEM_LANE_MESSAGE_MAX) = { 0 };
	unsigned int i;

	if (!bytes || bytes > RMEM_LANE_MESSAGE_MAX)
		return false;
	for (i = 0; i < count; i++) {
		unsigned int at = fields[i].at, end = at + fields[i].bytes;

		if (end > bytes || find_next_bit(taken, end, at) < end)
			return false;
		bitmap_set(taken, at, fields[i].bytes);
	}
	return true;
}

static bool lane_message_is_valid(const struct rmem_ioc_lane *args)
{
	const struct field fields[] = {
		{ args->cookie_at, 8 }, { args->offset_at, 8 }, { args->length_at, 8 },
		{ args->checksum_at, args->checksum_at ? 4 : 0 },
	};

	return fields_are_valid(fields, ARRAY_SIZE(fields), args->message_bytes);
}

static bool lane_has_answer(const struct rmem_ioc_lane *args)
{
	return args->answer || args->answer_mask || args->answer_bytes ||
	       args->answer_cookie_at || args->answer_offset_at || args->answer_length_at ||
	       args->answer_payload_at || args->answer_sum_at || args->answer_checksum_at;
}

static bool lane_answer_is_valid(const struct rmem_ioc_lane *args)
{
	const struct field fields[] = {
		{ args->answer_cookie_at, 8 }, { args->answer_offset_at, 8 },
		{ args->answer_length_at, 8 }, { args->answer_payload_at, 4 },
		{ args->answer_sum_at, args->answer_sum_at ? 4 : 0 },
		{ args->answer_checksum_at, args->answer_checksum_at ? 4 : 0 },
	};

	if (!(args->flags & RMEM_LANE_TAKE))
		return !lane_has_answer(args);
	return fields_are_valid(fields, ARRAY_SIZE(fields), args->answer_bytes);
}

static bool lane_allowed(struct socket *sock)
{
	if (!rmem_socket_allowed(sock))
		return false;
	/* a record of TLS is more than a message */
	return !sk_is_tcp(sock->sk) ||
	       (!inet_csk_has_ulp(sock->sk) && READ_ONCE(sock->ops)->sendmsg_locked);
}

static int lane_set_form(struct answer_form *form, const struct rmem_ioc_lane *args)
{
	form->bytes = args->answer_bytes;
	form->cookie_at = args->answer_cookie_at;
	form->offset_at = args->answer_offset_at;
	form->length_at = args->answer_length_at;
	form->payload_at = args->answer_payload_at;
	form->sum_at = args->answer_sum_at;
	form->checksum_at = args->answer_checksum_at;
	if (copy_from_user(form->same, u64_to_user_ptr(args->answer), form->bytes) ||
	    copy_from_user(form->mask, u64_to_user_ptr(args->answer_mask), form->bytes))
		return -EFAULT;
	return 0;
}

static struct rmem_lane *lane_new(struct rmem_region *region, const struct rmem_channel *channel,
				  const struct rmem_ioc_lane *args)
{
	struct rmem_lane *lane = kzalloc(sizeof(*lane), GFP_KERNEL_ACCOUNT);
	int err = -EFAULT;

	if (!lane)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(lane->message, u64_to_user_ptr(args->message), args->message_bytes) ||
	    lane_set_form(&lane->form, args))
		goto free;
	lane->sock = sockfd_lookup(args->fd, &err);
	err = -EINVAL;
	if (!lane->sock)
		goto free;
	if (!lane_allowed(lane->sock))
		goto put;
	kref_init(&lane->ref);
	mutex_init(&lane->mutex);
	mutex_init(&lane->answer_mutex);
	INIT_WORK(&lane->cut_work, lane_cut);
	init_waitqueue_func_entry(&lane->arrival, lane_arrival);
	INIT_LIST_HEAD(&lane->note.node);
	lane->note.region_id = region->id;
	lane->note.lane = args->lane;
	lane->region = region;
	lane->number = args->lane;
	lane->generation = channel->generation;
	/* of a unix socket the other end is not far, and its lock is not to be tried */
	lane->takes = args->flags & RMEM_LANE_TAKE && sk_is_tcp(lane->sock->sk);
	lane->at_once = args->at_once;
	lane->message_bytes = args->message_bytes;
	lane->cookie_at = args->cookie_at;
	lane->offset_at = args->offset_at;
	lane->length_at = args->length_at;
	lane->checksum_at = args->checksum_at;
	return lane;

put:
	sockfd_put(lane->sock);
free:
	kfree(lane);
	return ERR_PTR(err);
}

/* Makes it the region's, if that is right. */
static int lane_attach(struct rmem_lane *lane, struct rmem_region *region,
		       struct rmem_channel *channel)
{
	lockdep_assert_held(&region->lock);
	if (region->channel != channel || region->dead)
		return -ENOTCONN;
	if (region->lane)
		return -EISCONN;
	rmem_request_forget_lanes(region, lane->number);
	/* what is outstanding needs somebody who takes it */
	if (region->nr_asked && !region->nr_takers)
		lane->takes = false;
	lane->left = !lane->takes;
	region->lane = lane;
	return 0;
}

static int lane_start(struct rmem_region *region, struct rmem_channel *channel,
		      struct rmem_ioc_lane *args)
{
	struct rmem_lane *lane;
	struct sock *sk;
	bool takes;
	int err;

	if (!args->lane || args->taken || !lane_message_is_valid(args) ||
	    !lane_answer_is_valid(args))
		return -EINVAL;
	lane = lane_new(region, channel, args);
	if (IS_ERR(lane))
		return PTR_ERR(lane);
	/*
	 * The task that sends may be in the middle of sending elsewhere, with its page
	 * fragment half filled; it may be reclaiming memory.
	 */
	sk = lane->sock->sk;
	lock_sock(sk);
	sk->sk_allocation = GFP_NOIO;
	rmem_sock_own_frag(sk);
	release_sock(sk);
	takes = lane->takes;
	if (takes)
		add_wait_queue(sk_sleep(sk), &lane->arrival);

	spin_lock(&region->lock);
	err = lane_attach(lane, region, channel);
	if (!err) {
		args->flags = lane->takes ? RMEM_LANE_TAKE : 0;
		if (takes && !lane->takes)
			remove_wait_queue(sk_sleep(sk), &lane->arrival);
		if (lane->takes && !skb_queue_empty_lockless(&sk->sk_receive_queue)) {
			WRITE_ONCE(region->answers, true);
			wake_up(&region->answer_wait);
		}
	}
	/* the lane may be gone from now on */
	spin_unlock(&region->lock);
	if (err) {
		lane_stop(lane);
		lane_put(lane);
	}
	return err;
}

static int lane_finish(struct rmem_region *region, struct rmem_channel *channel,
		       struct rmem_ioc_lane *args)
{
	u32 room = args->answer_bytes;
	struct rmem_lane *lane = NULL;
	int err = 0;

	if (args->flags || args->lane || args->message_bytes || args->message ||
	    args->cookie_at || args->offset_at || args->length_at || args->checksum_at ||
	    args->answer_mask || args->answer_cookie_at || args->answer_offset_at ||
	    args->answer_length_at || args->answer_payload_at || args->answer_sum_at ||
	    args->answer_checksum_at || args->taken || args->at_once)
		return -EINVAL;
	args->answer_bytes = 0;
	spin_lock(&region->lock);
	if (region->channel == channel)
		lane = lane_detach(region);
	spin_unlock(&region->lock);
	if (!lane)
		return 0;
	lane_stop(lane);
	if (lane->takes) {
		rmem_request_leave_lane(region, channel, lane->number);
		args->flags = lane->answer.damaged ? RMEM_LANE_DAMAGED : 0;
		args->answer_bytes = lane->answer.bytes;
		args->taken = lane->answer.taken;
		if (copy_to_user(u64_to_user_ptr(args->answer), lane->answer.header,
				 min(room, lane->answer.bytes)))
			err = -EFAULT;
	}
	/* there may be what he was not woken for, and no answer will do so */
	if (rmem_ring_poll(channel))
		rmem_ring_wake(channel);
	lane_put(lane);
	return err;
}

/* RMEM_IOC_LANE */
int rmem_region_lane(struct rmem_region *region, struct rmem_channel *channel,
		     struct rmem_ioc_lane *args)
{
	if (args->fd != -1)
		return lane_start(region, channel, args);
	return lane_finish(region, channel, args);
}
