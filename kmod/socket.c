// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sockets that the daemon names, to have the module receive or send there.
 */
#include <linux/file.h>
#include <linux/net.h>
#include <net/sock.h>
#include <net/tcp_states.h>

#include "internal.h"

static LIST_HEAD(sockets_in_use);
static DEFINE_SPINLOCK(sockets_lock); /* innermost */

/*
 * A stream that carries bytes and nothing else, connected, and the caller's own:
 * a descriptor that somebody passed to the daemon is none of them.
 */
bool rmem_socket_allowed(struct socket *sock)
{
	const struct cred *opener = sock->file->f_cred;
	const struct sock *sk = sock->sk;

	if (sock->type != SOCK_STREAM || !(sk_is_tcp(sk) || sk->sk_family == AF_UNIX))
		return false;
	if ((1 << READ_ONCE(sk->sk_state)) & (TCPF_LISTEN | TCPF_SYN_SENT | TCPF_SYN_RECV))
		return false;
	return opener->user_ns == current_user_ns() && uid_eq(opener->euid, current_euid());
}

static bool socket_enter(struct rmem_socket *use)
{
	const struct rmem_socket *other;
	bool alone = true;

	spin_lock(&sockets_lock);
	list_for_each_entry(other, &sockets_in_use, node)
		alone &= other->sock->sk != use->sock->sk || other->direction != use->direction;
	if (alone)
		list_add(&use->node, &sockets_in_use);
	spin_unlock(&sockets_lock);
	return alone;
}

/*
 * rmem_socket_get() - use a socket of the caller's, for one call
 * @direction: READ or WRITE; nobody else uses it for that meanwhile
 *
 * Return: 0, EINVAL (it is none of those), EBUSY. On 0, rmem_socket_put() follows.
 */
int rmem_socket_get(struct rmem_socket *use, int fd, int direction)
{
	int err = -EINVAL, unused;

	use->sock = sockfd_lookup(fd, &unused);
	if (!use->sock)
		return -EINVAL;
	use->direction = direction;
	if (rmem_socket_allowed(use->sock))
		err = socket_enter(use) ? 0 : -EBUSY;
	if (err)
		sockfd_put(use->sock);
	return err;
}

void rmem_socket_put(struct rmem_socket *use)
{
	spin_lock(&sockets_lock);
	list_del(&use->node);
	spin_unlock(&sockets_lock);
	sockfd_put(use->sock);
}
