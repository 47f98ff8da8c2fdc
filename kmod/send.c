// SPDX-License-Identifier: GPL-2.0-only
/*
 * One copy out: what is to become durable goes from the folios straight into a
 * socket that the daemon names (RMEM_IOC_SEND).
 *
 * The daemon has sent the frame's header and says which bytes belong behind it;
 * here they are sent, as many as the socket takes, without waiting. Nothing is
 * remembered: the daemon knows how far they came.
 *
 * The bytes are the region's, not a write's. A frame that has been begun must be
 * completed, though the write may meanwhile be over (its deadline); its pages are
 * dirty again then, and as right as they ever were. So there is no moment at which
 * half a frame is on its way and the rest of it is not to be had.
 *
 * Folios are neither locked nor made stable: a store that races with the copy makes
 * the page dirty again, and it is written once more. Nor do they stay in the
 * socket: what is on its way there is a copy.
 */
#include <linux/bvec.h>
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <net/sock.h>

#include "internal.h"

/* Folios that one sendmsg sends. */
#define SEND_BATCH 32

/* The folios from @at on, or the first of them, each referenced; how many. */
static unsigned int send_take(struct rmem_region *region, u64 at, u64 end, struct bio_vec *from,
			      size_t *bytes)
{
	unsigned int n;

	*bytes = 0;
	for (n = 0; n < SEND_BATCH && at < end; n++) {
		struct folio *folio = rmem_pages_get(region, at >> PAGE_SHIFT);

		if (!folio)
			break;
		from[n].bv_page = folio_page(folio, 0);
		from[n].bv_offset = at - folio_pos(folio);
		from[n].bv_len = min_t(u64, folio_pos(folio) + folio_size(folio), end) - at;
		at += from[n].bv_len;
		*bytes += from[n].bv_len;
	}
	return n;
}

/* What a failed sendmsg means, as the uapi has it. */
static int send_error(int err, u32 *error)
{
	switch (err) {
	case -EINTR:		/* kTLS, whose lock is waited for; not a byte has gone */
	case -ERESTARTSYS:
		return -EAGAIN;
	case -EAGAIN:
	case -EPIPE:
	case -ENOMEM:
		return err;
	case -ENOBUFS:
		return -ENOMEM;
	case -EINVAL:
	case -ENOTCONN:
		return -EINVAL; /* it never was connected */
	default:
		*error = -err;
		return -ECONNRESET;
	}
}

static int send_bytes(struct rmem_region *region, struct socket *sock, struct rmem_ioc_send *args)
{
	while (args->sent < args->length) {
		u64 at = args->offset + args->sent;
		struct msghdr msg = { .msg_flags = MSG_DONTWAIT | MSG_NOSIGNAL };
		struct bio_vec from[SEND_BATCH];
		unsigned int n, i;
		size_t bytes;
		int sent;

		if (fatal_signal_pending(current))
			return -EINTR;
		n = send_take(region, at, args->offset + args->length, from, &bytes);
		if (!n)
			return -ENOENT;
		iov_iter_bvec(&msg.msg_iter, ITER_SOURCE, from, n, bytes);
		sent = sock_sendmsg(sock, &msg);
		for (i = 0; i < n; i++)
			folio_put(page_folio(from[i].bv_page));
		if (sent < 0)
			return send_error(sent, &args->error);
		args->sent += sent;
		atomic64_add(sent, &region->sent_bytes);
		cond_resched();
	}
	return 0;
}

/* RMEM_IOC_SEND */
int rmem_region_send(struct rmem_region *region, struct rmem_ioc_send *args)
{
	struct rmem_socket use;
	int err;

	if (!args->length || args->offset >= region->size ||
	    args->length > region->size - args->offset)
		return -EINVAL;
	/* its store is another one by now */
	if (READ_ONCE(region->state) == RMEM_STATE_FAILED)
		return -ESTALE;
	err = rmem_socket_get(&use, args->fd, WRITE);
	if (err)
		return err;
	err = send_bytes(region, use.sock, args);
	rmem_socket_put(&use);
	return err;
}
