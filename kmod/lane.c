// SPDX-License-Identifier: GPL-2.0-only
/*
 * Lanes: the thread that misses a chunk asks for it, on a socket that the daemon
 * lends (RMEM_IOC_LANE).
 *
 * The daemon says what a message looks like and where in it the three numbers of
 * a request belong; what they mean there is not known here. A request is in the
 * ring before its message is sent, so whatever an answer may be to, the daemon has
 * been told. What cannot be sent is the daemon's business, as if there were no lane.
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

#include "internal.h"
#include "trace.h"

/* How often to look whether a socket's lock is free, and how far apart. */
#define LANE_TRIES 10
#define LANE_PAUSE_US 50

/*
 * struct rmem_lane - a socket lent to those who wait
 *
 * Referenced by its region while it may be used, and by whoever is using it.
 */
struct rmem_lane {
	struct kref ref;
	u32 number;			/* the daemon's, for the ring */
	u32 generation;			/* of the channel */
	struct socket *sock;		/* its file is held until stopped */
	struct work_struct cut_work;

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

static void lane_free(struct kref *ref)
{
	kfree(container_of(ref, struct rmem_lane, ref));
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
 * rmem_lane_get() - publish a fetch that the caller is about to ask for
 *
 * Return: a lane to pass to rmem_lane_ask(), once the caller holds no lock; NULL,
 * and nothing has been done: the daemon has to ask.
 */
struct rmem_lane *rmem_lane_get(struct rmem_req *req)
{
	struct rmem_region *region = req->region;
	struct rmem_lane *lane = region->lane;

	lockdep_assert_held(&region->lock);
	if (!lane || !rmem_ring_ask(region->channel, req, lane->number))
		return NULL;
	kref_get(&lane->ref);
	return lane;
}

/* Asks for what rmem_lane_get() has published, or has the daemon do so. */
void rmem_lane_ask(struct rmem_lane *lane, struct rmem_req *req)
{
	bool asked = lane_ask(lane, req);

	trace_rmem_request_asked(req, asked ? 0 : -EAGAIN);
	if (asked)
		atomic64_inc(&req->region->asked);
	else
		rmem_request_unasked(req, lane->generation);
	lane_put(lane);
}

/*
 * rmem_lane_stop() - nobody sends on it any more; consumes the region's reference
 *
 * Waits for a message that is being sent, which waits for nobody.
 */
void rmem_lane_stop(struct rmem_lane *lane)
{
	if (!lane)
		return;
	mutex_lock(&lane->mutex);
	lane->stopped = true;
	mutex_unlock(&lane->mutex);
	/* whoever lent it must not go on behind half a message */
	flush_work(&lane->cut_work);
	sockfd_put(lane->sock);
	lane_put(lane);
}

/* Three numbers and a checksum, none of which may lie in another one's place. */
static bool lane_message_is_valid(const struct rmem_ioc_lane *args)
{
	const struct { u16 at; u16 bytes; } fields[] = {
		{ args->cookie_at, 8 }, { args->offset_at, 8 }, { args->length_at, 8 },
		{ args->checksum_at, args->checksum_at ? 4 : 0 },
	};
	DECLARE_BITMAP(taken, RMEM_LANE_MESSAGE_MAX) = { 0 };
	int i;

	if (!args->message_bytes || args->message_bytes > RMEM_LANE_MESSAGE_MAX)
		return false;
	for (i = 0; i < ARRAY_SIZE(fields); i++) {
		unsigned int at = fields[i].at, end = at + fields[i].bytes;

		if (end > args->message_bytes || find_next_bit(taken, end, at) < end)
			return false;
		bitmap_set(taken, at, fields[i].bytes);
	}
	return true;
}

static bool lane_allowed(struct socket *sock)
{
	if (!rmem_socket_allowed(sock))
		return false;
	/* a record of TLS is more than a message */
	return !sk_is_tcp(sock->sk) ||
	       (!inet_csk_has_ulp(sock->sk) && READ_ONCE(sock->ops)->sendmsg_locked);
}

static struct rmem_lane *lane_new(const struct rmem_channel *channel,
				  const struct rmem_ioc_lane *args)
{
	struct rmem_lane *lane = kzalloc(sizeof(*lane), GFP_KERNEL_ACCOUNT);
	int err = -EFAULT;

	if (!lane)
		return ERR_PTR(-ENOMEM);
	if (copy_from_user(lane->message, u64_to_user_ptr(args->message), args->message_bytes))
		goto free;
	lane->sock = sockfd_lookup(args->fd, &err);
	err = -EINVAL;
	if (!lane->sock)
		goto free;
	if (!lane_allowed(lane->sock))
		goto put;
	kref_init(&lane->ref);
	mutex_init(&lane->mutex);
	INIT_WORK(&lane->cut_work, lane_cut);
	lane->number = args->lane;
	lane->generation = channel->generation;
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

static int lane_start(struct rmem_region *region, struct rmem_channel *channel,
		      const struct rmem_ioc_lane *args)
{
	struct rmem_lane *lane;
	int err = 0;

	if (!args->lane || !lane_message_is_valid(args))
		return -EINVAL;
	lane = lane_new(channel, args);
	if (IS_ERR(lane))
		return PTR_ERR(lane);
	/*
	 * The task that sends may be in the middle of sending elsewhere, with its page
	 * fragment half filled; it may be reclaiming memory.
	 */
	lock_sock(lane->sock->sk);
	lane->sock->sk->sk_allocation = GFP_NOIO;
	rmem_sock_own_frag(lane->sock->sk);
	release_sock(lane->sock->sk);

	spin_lock(&region->lock);
	if (region->channel != channel)
		err = -ENOTCONN;
	else if (region->lane)
		err = -EISCONN;
	else
		region->lane = lane;
	spin_unlock(&region->lock);
	if (err)
		rmem_lane_stop(lane);
	return err;
}

/* RMEM_IOC_LANE */
int rmem_region_lane(struct rmem_region *region, struct rmem_channel *channel,
		     const struct rmem_ioc_lane *args)
{
	struct rmem_lane *lane = NULL;

	if (args->fd != -1)
		return lane_start(region, channel, args);
	if (args->lane || args->message_bytes || args->message || args->cookie_at ||
	    args->offset_at || args->length_at || args->checksum_at)
		return -EINVAL;
	spin_lock(&region->lock);
	if (region->channel == channel)
		swap(lane, region->lane);
	spin_unlock(&region->lock);
	rmem_lane_stop(lane);
	return 0;
}
