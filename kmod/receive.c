// SPDX-License-Identifier: GPL-2.0-only
/*
 * One copy in: a reply's payload goes from a socket that the daemon names
 * straight into the folios of its fetch (RMEM_IOC_RECEIVE).
 *
 * The daemon reads the frame around the payload and says how many bytes are the
 * fetch's; here they are taken, as many as there are, without waiting. The
 * fetch's cursor says how far they came, so the rest may come by any number of
 * calls, or by RMEM_IOC_FILL. As with that, the folios are the request's own
 * until the last byte is there and, if there is a checksum, right.
 */
#include <linux/bvec.h>
#include <linux/crc32c.h>
#include <linux/highmem.h>
#include <linux/net.h>
#include <linux/socket.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/sock.h>

#include "internal.h"

/* The folios' bytes from @at to @end, or the first of them; how many segments. */
unsigned int rmem_receive_space(struct rmem_req *req, u64 at, u64 end, struct bio_vec *space)
{
	struct folio *folio;
	unsigned int n = 0;
	u64 start = 0;

	list_for_each_entry(folio, &req->fetch.folios, lru) {
		u64 next = start + folio_size(folio);

		if (at < next) {
			space[n].bv_page = folio_page(folio, 0);
			space[n].bv_offset = at - start;
			space[n].bv_len = min(next, end) - at;
			at += space[n++].bv_len;
			if (at == end || n == RMEM_RECEIVE_BATCH)
				break;
		}
		start = next;
	}
	return n;
}

/* What a failed or empty recvmsg means, as the uapi has it. */
static int receive_error(struct sock *sk, int err, u32 *error)
{
	switch (err) {
	case 0:
		return -EPIPE;
	case -EAGAIN:
	case -EINTR:
		return err;
	case -EINVAL:
	case -ENOTCONN:
		return -EINVAL; /* it never was connected */
	case -EIO:
		/* kTLS, which has no other use for it */
		if (sk_is_tcp(sk) && inet_csk_has_ulp(sk))
			return -ENOMSG;
		fallthrough;
	default:
		*error = -err;
		return -ECONNRESET;
	}
}

/*
 * Moves the cursor on to the end of the payload, or to where the socket is empty.
 * No room for control messages: descriptors that come over a unix socket are
 * closed by it, and kTLS keeps a record that is not data.
 */
static int receive_bytes(struct rmem_req *req, struct socket *sock, struct rmem_ioc_receive *args)
{
	u64 end = args->offset + args->length;

	while (req->fetch.cursor < end) {
		struct bio_vec space[RMEM_RECEIVE_BATCH];
		struct msghdr msg = {};
		unsigned int n = rmem_receive_space(req, req->fetch.cursor, end, space), i;
		size_t bytes = 0;
		int got;

		if (fatal_signal_pending(current))
			return -EINTR;
		for (i = 0; i < n; i++)
			bytes += space[i].bv_len;
		iov_iter_bvec(&msg.msg_iter, ITER_DEST, space, n, bytes);
		got = sock_recvmsg(sock, &msg, MSG_DONTWAIT);
		if (got <= 0)
			return receive_error(sock->sk, got, &args->error);
		req->fetch.cursor += got;
		args->received += got;
		atomic64_add(got, &req->region->received_bytes);
		cond_resched();
	}
	return 0;
}

/* CRC-32C of all the bytes of a fetch. */
static u32 receive_checksum(struct rmem_req *req)
{
	struct folio *folio;
	u64 left = req->length;
	u32 crc = ~0;

	list_for_each_entry(folio, &req->fetch.folios, lru) {
		long i;

		for (i = 0; i < folio_nr_pages(folio) && left; i++) {
			size_t bytes = min_t(u64, left, PAGE_SIZE);
			void *from = kmap_local_folio(folio, i * PAGE_SIZE);

			crc = crc32c(crc, from, bytes);
			kunmap_local(from);
			left -= bytes;
		}
		cond_resched();
	}
	return ~crc;
}

/* Bytes have been received; as rmem_fetch_filled(), and EBADMSG for all of them. */
int rmem_receive_done(struct rmem_req *req, bool checked, u32 checksum, bool mark)
{
	if (checked && req->fetch.cursor == req->length && receive_checksum(req) != checksum) {
		req->fetch.cursor = 0;
		return -EBADMSG;
	}
	return rmem_fetch_filled(req, mark);
}

static int receive_locked(struct rmem_req *req, struct socket *sock, struct rmem_ioc_receive *args)
{
	int err = rmem_fetch_seek(req, args->offset, args->length);

	if (!err)
		err = receive_bytes(req, sock, args);
	if (err)
		return err;
	return rmem_receive_done(req, args->flags & RMEM_RECEIVE_CHECKSUM, args->checksum,
				 args->flags & RMEM_FILL_MARK);
}

/* RMEM_IOC_RECEIVE */
int rmem_fetch_receive(struct rmem_channel *channel, struct rmem_ioc_receive *args)
{
	struct rmem_socket use;
	struct rmem_req *req;
	int err;

	if (args->checksum && !(args->flags & RMEM_RECEIVE_CHECKSUM))
		return -EINVAL;
	/* before the socket: bytes of a fetch that is over are not looked at */
	req = rmem_fetch_lock(channel, args->cookie);
	if (IS_ERR(req))
		return PTR_ERR(req);
	err = rmem_socket_get(&use, args->fd, READ);
	if (!err) {
		err = receive_locked(req, use.sock, args);
		rmem_socket_put(&use);
	}
	rmem_fetch_unlock(req);
	return err;
}
