// SPDX-License-Identifier: GPL-2.0-only
/*
 * rmemfs: every region as a regular file of its true size.
 *
 * One superblock, however often it is mounted, and one flat directory whose
 * entries are the regions of the moment. A file's inode is a stand-in: it knows
 * the region's id, nothing more, so that neither a cached dentry nor a bind
 * mount keeps a region from being unmade. Opening looks the id up.
 */
#include <linux/fs_context.h>
#include <linux/module.h>
#include <linux/namei.h>
#include <linux/statfs.h>

#include "internal.h"

#define RMEMFS_MAGIC 0x736d656d		/* "mems" */
#define RMEMFS_ROOT_INO 1
/* Region ids begin at 1; the root's number is taken. */
#define RMEMFS_INO(id) ((id) + 1ul)

static struct rmem_region *file_region(struct inode *inode)
{
	return rmem_region_get(inode->i_ino - 1);
}

static int file_open(struct inode *inode, struct file *file)
{
	struct rmem_region *region = file_region(inode);
	int err;

	if (!region)
		return -ENOENT;
	file->private_data = NULL;
	err = rmem_region_open(region, file);
	rmem_region_put(region);
	return err == -ENODEV ? -ENOENT : err;
}

static const struct file_operations file_fops = {
	.owner		= THIS_MODULE,
	.open		= file_open,
	.release	= rmem_file_release,
	.unlocked_ioctl	= rmem_file_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.read_iter	= rmem_read_iter,
	.write_iter	= rmem_write_iter,
	.splice_read	= copy_splice_read,
	.splice_write	= iter_file_splice_write,
	.llseek		= rmem_llseek,
	.mmap		= rmem_mmap,
	.fsync		= rmem_fsync,
	.fallocate	= rmem_fallocate,
};

/*
 * Times may be touched; size, owner and mode are the region's own. To set the
 * size that it has is not to change it: SQLite ends each checkpoint with that.
 */
static int file_setattr(struct mnt_idmap *idmap, struct dentry *dentry, struct iattr *attr)
{
	int err = setattr_prepare(idmap, dentry, attr);

	if (err)
		return err;
	if (attr->ia_valid & (ATTR_MODE | ATTR_UID | ATTR_GID))
		return -EPERM;
	if (attr->ia_valid & ATTR_SIZE && attr->ia_size != i_size_read(d_inode(dentry)))
		return -EPERM;
	setattr_copy(idmap, d_inode(dentry), attr);
	return 0;
}

static const struct inode_operations file_iops = {
	.setattr	= file_setattr,
	.getattr	= simple_getattr,
};

static struct inode *file_inode_new(struct super_block *sb, struct rmem_region *region)
{
	struct inode *inode = new_inode(sb);

	if (!inode)
		return ERR_PTR(-ENOMEM);
	inode->i_ino = RMEMFS_INO(region->id);
	inode->i_mode = S_IFREG | region->mode;
	inode->i_uid = region->uid;
	inode->i_gid = region->gid;
	rmem_inode_init_times(inode);
	i_size_write(inode, region->size);
	inode->i_op = &file_iops;
	inode->i_fop = &file_fops;
	return inode;
}

/* Is the entry's region still that region? A name without one is never cached. */
static int rmemfs_revalidate(struct dentry *dentry, unsigned int flags)
{
	struct inode *inode = d_inode_rcu(dentry);
	struct rmem_region *region;

	if (!inode)
		return 0;
	if (S_ISDIR(inode->i_mode))
		return 1;
	if (flags & LOOKUP_RCU)
		return -ECHILD;
	region = file_region(inode);
	if (!region)
		return 0;
	rmem_region_put(region);
	return 1;
}

static const struct dentry_operations rmemfs_dops = {
	.d_revalidate	= rmemfs_revalidate,
	.d_delete	= always_delete_dentry,
};

static struct dentry *rmemfs_lookup(struct inode *dir, struct dentry *dentry, unsigned int flags)
{
	struct inode *inode = NULL;
	struct rmem_region *region;

	if (dentry->d_name.len > RMEM_NAME_MAX)
		return ERR_PTR(-ENAMETOOLONG);
	region = rmem_region_get_by_name(dentry->d_name.name, dentry->d_name.len);
	if (region) {
		inode = file_inode_new(dir->i_sb, region);
		rmem_region_put(region);
	}
	return d_splice_alias(inode, dentry);
}

static int rmemfs_iterate(struct file *file, struct dir_context *ctx)
{
	struct rmem_region *region;
	unsigned long id;

	if (!dir_emit_dots(file, ctx))
		return 0;
	/* position 2 + id: stable while regions come and go */
	for (id = ctx->pos - 2; xa_find(&rmem_regions, &id, MINORMASK, XA_PRESENT); id++) {
		bool more = true;

		ctx->pos = id + 2;
		region = rmem_region_get(id);
		if (region) {
			more = dir_emit(ctx, region->name, strlen(region->name), RMEMFS_INO(id),
					DT_REG);
			rmem_region_put(region);
		}
		if (!more)
			return 0;
	}
	ctx->pos = id + 2;
	return 0;
}

static const struct file_operations rmemfs_dir_fops = {
	.owner		= THIS_MODULE,
	.read		= generic_read_dir,
	.iterate_shared	= rmemfs_iterate,
	.llseek		= generic_file_llseek,
};

static const struct inode_operations rmemfs_dir_iops = {
	.lookup		= rmemfs_lookup,
};

static const struct super_operations rmemfs_sops = {
	.statfs		= simple_statfs,
	.drop_inode	= generic_delete_inode,
};

static int rmemfs_fill_super(struct super_block *sb, struct fs_context *fc)
{
	struct inode *root;

	sb->s_magic = RMEMFS_MAGIC;
	sb->s_maxbytes = MAX_LFS_FILESIZE;
	sb->s_blocksize = PAGE_SIZE;
	sb->s_blocksize_bits = PAGE_SHIFT;
	sb->s_op = &rmemfs_sops;
	sb->s_d_op = &rmemfs_dops;
	sb->s_time_gran = 1;
	sb->s_iflags |= SB_I_NODEV | SB_I_NOEXEC;

	root = new_inode(sb);
	if (!root)
		return -ENOMEM;
	root->i_ino = RMEMFS_ROOT_INO;
	root->i_mode = S_IFDIR | 0755;
	rmem_inode_init_times(root);
	set_nlink(root, 2);
	root->i_op = &rmemfs_dir_iops;
	root->i_fop = &rmemfs_dir_fops;
	sb->s_root = d_make_root(root);
	return sb->s_root ? 0 : -ENOMEM;
}

static int rmemfs_get_tree(struct fs_context *fc)
{
	return get_tree_single(fc, rmemfs_fill_super);
}

static const struct fs_context_operations rmemfs_context_ops = {
	.get_tree	= rmemfs_get_tree,
};

static int rmemfs_init_fs_context(struct fs_context *fc)
{
	fc->ops = &rmemfs_context_ops;
	return 0;
}

static struct file_system_type rmemfs = {
	.owner			= THIS_MODULE,
	.name			= "rmemfs",
	.init_fs_context	= rmemfs_init_fs_context,
	.kill_sb		= kill_anon_super,
};
MODULE_ALIAS_FS("rmemfs");

int rmem_fs_init(void)
{
	return register_filesystem(&rmemfs);
}

void rmem_fs_exit(void)
{
	unregister_filesystem(&rmemfs);
}
