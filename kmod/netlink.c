// SPDX-License-Identifier: GPL-2.0-only
/*
 * Generic netlink: regions made, unmade, changed, listed, and events.
 *
 * Attributes and policy are generated from uapi/rmem.yaml (netlink_gen.c).
 */
#include <linux/file.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <net/genetlink.h>
#include <net/sock.h>

#include "internal.h"
#include "netlink_gen.h"

static struct genl_family rmem_family;

/* Room for any reply: the longest attributes, and the rest. */
#define RMEM_REPLY_SIZE (RMEM_SOURCE_MAX + RMEM_BLOB_MAX + 1024)

static int put_u64(struct sk_buff *skb, int attribute, u64 value)
{
	return nla_put_u64_64bit(skb, attribute, value, RMEM_A_REGION_PAD);
}

static int put_config(struct sk_buff *skb, struct rmem_region *region)
{
	if (nla_put_u32(skb, RMEM_A_REGION_ID, region->id) ||
	    nla_put_string(skb, RMEM_A_REGION_NAME, region->name) ||
	    put_u64(skb, RMEM_A_REGION_SIZE, region->size) ||
	    nla_put_u32(skb, RMEM_A_REGION_CHUNK, region->chunk_bytes) ||
	    nla_put_u8(skb, RMEM_A_REGION_FOLIO_ORDER, region->folio_order) ||
	    nla_put_u32(skb, RMEM_A_REGION_FLAGS, region->flags) ||
	    nla_put_u32(skb, RMEM_A_REGION_UID, from_kuid_munged(current_user_ns(), region->uid)) ||
	    nla_put_u32(skb, RMEM_A_REGION_GID, from_kgid_munged(current_user_ns(), region->gid)) ||
	    nla_put_u32(skb, RMEM_A_REGION_MODE, region->mode) ||
	    nla_put_u32(skb, RMEM_A_REGION_FAULT_TIMEOUT_MS,
			region->fault_timeout_ms) ||
	    nla_put_u32(skb, RMEM_A_REGION_SYNC_TIMEOUT_MS,
			region->sync_timeout_ms) ||
	    nla_put_u32(skb, RMEM_A_REGION_ON_LOSS, region->on_loss) ||
	    nla_put_string(skb, RMEM_A_REGION_SOURCE, region->source) ||
	    nla_put_string(skb, RMEM_A_REGION_INSTANCE, region->instance) ||
	    nla_put(skb, RMEM_A_REGION_WRITER, sizeof(region->writer), region->writer) ||
	    put_u64(skb, RMEM_A_REGION_RESIDENT_LIMIT, region->resident_limit) ||
	    put_u64(skb, RMEM_A_REGION_DIRTY_LIMIT, region->dirty_limit) ||
	    put_u64(skb, RMEM_A_REGION_PUSH_THRESHOLD, region->push_threshold))
		return -EMSGSIZE;
	return region->blob_bytes ?
	       nla_put(skb, RMEM_A_REGION_BLOB, region->blob_bytes, region->blob) : 0;
}

static int put_state(struct sk_buff *skb, struct rmem_region *region)
{
	char reason[RMEM_REASON_SIZE];
	u32 state = rmem_region_state(region, reason);
	unsigned int users;
	pid_t pid;

	spin_lock(&region->lock);
	users = region->users;
	pid = region->channel ? region->channel->pid : 0;
	spin_unlock(&region->lock);
	if (nla_put_u32(skb, RMEM_A_REGION_STATE, state) ||
	    nla_put_string(skb, RMEM_A_REGION_REASON, reason) ||
	    nla_put_u32(skb, RMEM_A_REGION_USERS, users))
		return -EMSGSIZE;
	return pid ? nla_put_u32(skb, RMEM_A_REGION_DAEMON_PID, pid) : 0;
}

static int put_counters(struct sk_buff *skb, struct rmem_region *region)
{
	struct rmem_ioc_info info;

	rmem_region_info(region, &info);
	if (nla_put_u32(skb, RMEM_A_REGION_WAITING, atomic_read(&region->waiting)) ||
	    put_u64(skb, RMEM_A_REGION_RESIDENT_BYTES, info.resident_bytes) ||
	    put_u64(skb, RMEM_A_REGION_DIRTY_BYTES, info.dirty_bytes) ||
	    put_u64(skb, RMEM_A_REGION_WRITEBACK_BYTES, info.writeback_bytes) ||
	    put_u64(skb, RMEM_A_REGION_FETCHED_BYTES, info.fetched_bytes) ||
	    put_u64(skb, RMEM_A_REGION_PUSHED_BYTES, info.pushed_bytes) ||
	    put_u64(skb, RMEM_A_REGION_FAULTS_DEMAND, atomic64_read(&region->faults_demand)) ||
	    put_u64(skb, RMEM_A_REGION_FAULTS_RESIDENT, atomic64_read(&region->faults_resident)) ||
	    put_u64(skb, RMEM_A_REGION_FAULTS_WRITE_PROTECT,
		    atomic64_read(&region->faults_write_protect)) ||
	    put_u64(skb, RMEM_A_REGION_ERRORS, atomic64_read(&region->errors)) ||
	    put_u64(skb, RMEM_A_REGION_MODULE_BYTES, atomic64_read(&region->module_bytes)))
		return -EMSGSIZE;
	return 0;
}

static int put_region(struct sk_buff *skb, struct rmem_region *region, u32 portid, u32 seq,
		      int flags)
{
	void *header = genlmsg_put(skb, portid, seq, &rmem_family, flags, RMEM_CMD_REGION_GET);
	int err;

	if (!header)
		return -EMSGSIZE;
	/* the blob may change under region-set */
	lockdep_assert_held(&rmem_mutex);
	err = put_config(skb, region) ?: put_state(skb, region) ?: put_counters(skb, region);
	if (err) {
		genlmsg_cancel(skb, header);
		return err;
	}
	genlmsg_end(skb, header);
	return 0;
}

static bool caller_sees(struct rmem_region *region)
{
	return !rmem_region_permission(region, MAY_READ);
}

/* The region that a request names, referenced. */
static struct rmem_region *named_region(struct genl_info *info)
{
	struct nlattr *id = info->attrs[RMEM_A_REGION_ID];
	struct nlattr *name = info->attrs[RMEM_A_REGION_NAME];
	struct rmem_region *region;

	if (id)
		region = rmem_region_get(nla_get_u32(id));
	else if (name)
		region = rmem_region_get_by_name(nla_data(name), nla_len(name) - 1);
	else
		return ERR_PTR(-EINVAL);
	return region ?: ERR_PTR(-ENOENT);
}

/* An open, writable /dev/rmem_control is what entitles to change regions. */
static int check_authority(struct genl_info *info)
{
	struct nlattr *attr = info->attrs[RMEM_A_REGION_CONTROL_FD];
	struct file *file;
	bool control;

	/* regions are the host's, whatever a container was handed */
	if (current_user_ns() != &init_user_ns)
		return -EPERM;
	if (GENL_REQ_ATTR_CHECK(info, RMEM_A_REGION_CONTROL_FD))
		return -EINVAL;
	file = fget(nla_get_u32(attr));
	if (!file)
		return -EBADF;
	control = rmem_chrdev_is_control(file);
	fput(file);
	return control ? 0 : -EPERM;
}

int rmem_nl_region_get_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct rmem_region *region = named_region(info);
	struct sk_buff *reply;
	int err;

	if (IS_ERR(region))
		return PTR_ERR(region);
	err = -EACCES;
	if (!caller_sees(region))
		goto put;
	err = -ENOMEM;
	reply = genlmsg_new(RMEM_REPLY_SIZE, GFP_KERNEL);
	if (!reply)
		goto put;
	mutex_lock(&rmem_mutex);
	err = put_region(reply, region, info->snd_portid, info->snd_seq, 0);
	mutex_unlock(&rmem_mutex);
	if (err)
		nlmsg_free(reply);
	else
		err = genlmsg_reply(reply, info);
put:
	rmem_region_put(region);
	return err;
}

int rmem_nl_region_get_dumpit(struct sk_buff *skb, struct netlink_callback *cb)
{
	struct rmem_region *region;
	unsigned long id = cb->args[0];
	int err = 0;

	mutex_lock(&rmem_mutex);
	xa_for_each_start(&rmem_regions, id, region, cb->args[0]) {
		if (caller_sees(region))
			err = put_region(skb, region, NETLINK_CB(cb->skb).portid,
					 cb->nlh->nlmsg_seq, NLM_F_MULTI);
		if (err)
			break;
		cb->args[0] = id + 1;
	}
	mutex_unlock(&rmem_mutex);
	/* a message that holds something asks to be called again */
	return skb->len ?: err;
}

static u32 attr_u32(struct genl_info *info, int attribute, u32 otherwise)
{
	return info->attrs[attribute] ? nla_get_u32(info->attrs[attribute]) : otherwise;
}

static u64 attr_u64(struct genl_info *info, int attribute, u64 otherwise)
{
	return info->attrs[attribute] ? nla_get_u64(info->attrs[attribute]) : otherwise;
}

static int reply_new(struct genl_info *info, struct rmem_region *region)
{
	struct sk_buff *reply = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *header;

	if (!reply)
		return -ENOMEM;
	header = genlmsg_put_reply(reply, info, &rmem_family, 0, RMEM_CMD_REGION_NEW);
	if (!header || nla_put_u32(reply, RMEM_A_REGION_ID, region->id) ||
	    nla_put(reply, RMEM_A_REGION_WRITER, sizeof(region->writer), region->writer)) {
		nlmsg_free(reply);
		return -EMSGSIZE;
	}
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);
}

int rmem_nl_region_new_doit(struct sk_buff *skb, struct genl_info *info)
{
	struct nlattr **attrs = info->attrs;
	struct rmem_region_config config;
	struct rmem_region *region;
	u64 lost;
	int err;

	err = check_authority(info);
	if (err)
		return err;
	if (GENL_REQ_ATTR_CHECK(info, RMEM_A_REGION_NAME) ||
	    GENL_REQ_ATTR_CHECK(info, RMEM_A_REGION_SIZE) ||
	    GENL_REQ_ATTR_CHECK(info, RMEM_A_REGION_CHUNK))
		return -EINVAL;
	config = (struct rmem_region_config) {
		.name = nla_data(attrs[RMEM_A_REGION_NAME]),
		.size = nla_get_u64(attrs[RMEM_A_REGION_SIZE]),
		.chunk_bytes = nla_get_u32(attrs[RMEM_A_REGION_CHUNK]),
		.flags = attr_u32(info, RMEM_A_REGION_FLAGS, 0),
		.uid = make_kuid(current_user_ns(),
				 attr_u32(info, RMEM_A_REGION_UID,
					  from_kuid(current_user_ns(), current_fsuid()))),
		.gid = make_kgid(current_user_ns(),
				 attr_u32(info, RMEM_A_REGION_GID,
					  from_kgid(current_user_ns(), current_fsgid()))),
		.mode = attr_u32(info, RMEM_A_REGION_MODE, 0600),
		.fault_timeout_ms = attr_u32(info, RMEM_A_REGION_FAULT_TIMEOUT_MS, 30000),
		.sync_timeout_ms = attr_u32(info, RMEM_A_REGION_SYNC_TIMEOUT_MS, 30000),
		.on_loss = attr_u32(info, RMEM_A_REGION_ON_LOSS, RMEM_ON_LOSS_WAIT),
		.resident_limit = attr_u64(info, RMEM_A_REGION_RESIDENT_LIMIT, 0),
		.dirty_limit = attr_u64(info, RMEM_A_REGION_DIRTY_LIMIT, 0),
		.push_threshold = attr_u64(info, RMEM_A_REGION_PUSH_THRESHOLD, 0),
		.source = "",
		.instance = "",
	};
	if (attr_u32(info, RMEM_A_REGION_MODE, 0600) & ~0777)
		return -EINVAL;
	if (attrs[RMEM_A_REGION_FOLIO_ORDER])
		config.folio_order = nla_get_u8(attrs[RMEM_A_REGION_FOLIO_ORDER]);
	if (attrs[RMEM_A_REGION_SOURCE])
		config.source = nla_data(attrs[RMEM_A_REGION_SOURCE]);
	if (attrs[RMEM_A_REGION_INSTANCE])
		config.instance = nla_data(attrs[RMEM_A_REGION_INSTANCE]);
	if (attrs[RMEM_A_REGION_BLOB]) {
		config.blob = nla_data(attrs[RMEM_A_REGION_BLOB]);
		config.blob_bytes = nla_len(attrs[RMEM_A_REGION_BLOB]);
	}

	mutex_lock(&rmem_mutex);
	region = rmem_region_new(&config);
	err = IS_ERR(region) ? PTR_ERR(region) : reply_new(info, region);
	if (err && !IS_ERR(region))
		rmem_region_del(region, true, &lost);
	mutex_unlock(&rmem_mutex);
	return err;
}

static int region_set(struct rmem_region *region, struct genl_info *info)
{
	u32 fault_ms = attr_u32(info, RMEM_A_REGION_FAULT_TIMEOUT_MS, 1);
	u32 sync_ms = attr_u32(info, RMEM_A_REGION_SYNC_TIMEOUT_MS, 1);
	u32 on_loss = attr_u32(info, RMEM_A_REGION_ON_LOSS, RMEM_ON_LOSS_WAIT);
	u64 resident = attr_u64(info, RMEM_A_REGION_RESIDENT_LIMIT, region->resident_limit);
	u64 dirty = attr_u64(info, RMEM_A_REGION_DIRTY_LIMIT, region->dirty_limit);
	u64 threshold = attr_u64(info, RMEM_A_REGION_PUSH_THRESHOLD, region->push_threshold);
	struct nlattr *blob = info->attrs[RMEM_A_REGION_BLOB];
	void *copy = NULL;

	lockdep_assert_held(&rmem_mutex);
	if (!fault_ms || !sync_ms || on_loss > RMEM_ON_LOSS_KILL ||
	    !rmem_limit_is_valid(resident, region->chunk_bytes) ||
	    !rmem_limit_is_valid(dirty, region->chunk_bytes) ||
	    (blob && nla_len(blob) > RMEM_BLOB_MAX))
		return -EINVAL;
	if (blob && nla_len(blob)) {
		copy = kmemdup(nla_data(blob), nla_len(blob), GFP_KERNEL_ACCOUNT);
		if (!copy)
			return -ENOMEM;
	}
	if (blob) {
		kfree(region->blob);
		region->blob = copy;
		region->blob_bytes = nla_len(blob);
	}
	if (info->attrs[RMEM_A_REGION_FAULT_TIMEOUT_MS])
		WRITE_ONCE(region->fault_timeout_ms, fault_ms);
	if (info->attrs[RMEM_A_REGION_SYNC_TIMEOUT_MS])
		WRITE_ONCE(region->sync_timeout_ms, sync_ms);
	if (info->attrs[RMEM_A_REGION_ON_LOSS])
		WRITE_ONCE(region->on_loss, on_loss);
	WRITE_ONCE(region->resident_limit, resident);
	WRITE_ONCE(region->dirty_limit, dirty);
	WRITE_ONCE(region->push_threshold, threshold);
	return 0;
}

/* Consumes @reply. */
static int reply_lost(struct genl_info *info, struct sk_buff *reply, u64 lost)
{
	void *header;

	header = genlmsg_put_reply(reply, info, &rmem_family, 0, RMEM_CMD_REGION_DEL);
	if (!header || put_u64(reply, RMEM_A_REGION_LOST_BYTES, lost)) {
		nlmsg_free(reply);
		return -EMSGSIZE;
	}
	genlmsg_end(reply, header);
	return genlmsg_reply(reply, info);
}

static int region_unmake(struct rmem_region *region, struct genl_info *info)
{
	bool force = nla_get_flag(info->attrs[RMEM_A_REGION_FORCE]);
	struct sk_buff *reply = NULL;
	u64 lost;
	int err;

	/* once it is unmade it is too late to fail */
	if (force) {
		reply = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
		if (!reply)
			return -ENOMEM;
	}
	err = rmem_region_del(region, force, &lost);
	if (!err && force)
		return reply_lost(info, reply, lost);
	nlmsg_free(reply);
	return err;
}

static int region_abort(struct rmem_region *region, struct genl_info *info)
{
	rmem_request_abort(region);
	return 0;
}

static int change_region(struct genl_info *info,
			 int (*change)(struct rmem_region *region, struct genl_info *info))
{
	struct rmem_region *region;
	int err = check_authority(info);

	if (err)
		return err;
	if (GENL_REQ_ATTR_CHECK(info, RMEM_A_REGION_ID))
		return -EINVAL;
	mutex_lock(&rmem_mutex);
	region = rmem_region_get(nla_get_u32(info->attrs[RMEM_A_REGION_ID]));
	if (!region)
		err = -ENOENT;
	else
		err = change(region, info);
	mutex_unlock(&rmem_mutex);
	if (region)
		rmem_region_put(region);
	return err;
}

int rmem_nl_region_set_doit(struct sk_buff *skb, struct genl_info *info)
{
	return change_region(info, region_set);
}

int rmem_nl_region_del_doit(struct sk_buff *skb, struct genl_info *info)
{
	return change_region(info, region_unmake);
}

int rmem_nl_region_abort_doit(struct sk_buff *skb, struct genl_info *info)
{
	return change_region(info, region_abort);
}

/* Tells the events group, in every network namespace; lost without memory. */
void rmem_netlink_event(struct rmem_region *region, u32 event)
{
	char reason[RMEM_REASON_SIZE];
	u32 state = rmem_region_state(region, reason);
	struct sk_buff *skb = genlmsg_new(NLMSG_GOODSIZE, GFP_KERNEL);
	void *header;

	if (!skb)
		return;
	header = genlmsg_put(skb, 0, 0, &rmem_family, 0, RMEM_CMD_REGION_EVENT);
	if (!header || nla_put_u32(skb, RMEM_A_REGION_EVENT, event) ||
	    nla_put_u32(skb, RMEM_A_REGION_ID, region->id) ||
	    nla_put_string(skb, RMEM_A_REGION_NAME, region->name) ||
	    nla_put_u32(skb, RMEM_A_REGION_STATE, state) ||
	    nla_put_string(skb, RMEM_A_REGION_REASON, reason)) {
		nlmsg_free(skb);
		return;
	}
	genlmsg_end(skb, header);
	rcu_read_lock();
	genlmsg_multicast_allns(&rmem_family, skb, 0, RMEM_NLGRP_EVENTS);
	rcu_read_unlock();
}

static const struct genl_multicast_group rmem_groups[] = {
	[RMEM_NLGRP_EVENTS] = {
		.name = RMEM_MCGRP_EVENTS,
		.flags = GENL_MCAST_CAP_NET_ADMIN,
	},
};

static struct genl_family rmem_family __ro_after_init = {
	.name		= RMEM_FAMILY_NAME,
	.version	= RMEM_FAMILY_VERSION,
	.netnsok	= true,
	.parallel_ops	= true,
	.module		= THIS_MODULE,
	.maxattr	= RMEM_A_REGION_MAX,
	.ops		= rmem_nl_ops,
	.n_ops		= ARRAY_SIZE(rmem_nl_ops),
	.resv_start_op	= __RMEM_CMD_MAX,
	.mcgrps		= rmem_groups,
	.n_mcgrps	= ARRAY_SIZE(rmem_groups),
};

int __init rmem_netlink_init(void)
{
	return genl_register_family(&rmem_family);
}

void rmem_netlink_exit(void)
{
	genl_unregister_family(&rmem_family);
}
