// SPDX-License-Identifier: GPL-2.0-only
/*
 * An open region: what the three frontends do alike. Each of them puts the
 * region into file->private_data and its page cache into file->f_mapping.
 */
#include <linux/falloc.h>
#include <linux/swap.h>
#include <linux/uio.h>
#include <linux/writeback.h>

#include "internal.h"
#include "trace.h"

ssize_t rmem_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct rmem_region *region = iocb->ki_filp->private_data;
	u64 pos = iocb->ki_pos;
	ssize_t done = 0;
	int err = 0;

	if (!region)
		return -ENOTCONN;
	while (iov_iter_count(to) && pos < region->size) {
		pgoff_t index = pos >> PAGE_SHIFT;
		struct folio *folio = rmem_pages_get(region, index);
		size_t bytes, copied;

		if (!folio) {
			if (iocb->ki_flags & IOCB_NOWAIT)
				err = -EAGAIN;
			else
				err = rmem_fetch_populate(region, index);
			if (err)
				break;
			continue;
		}
		rmem_pages_hit(region, folio, index);
		bytes = min_t(u64, region->size - pos, PAGE_SIZE - offset_in_page(pos));
		copied = copy_page_to_iter(folio_file_page(folio, index), offset_in_page(pos),
					   bytes, to);
		folio_mark_accessed(folio);
		folio_put(folio);
		pos += copied;
		done += copied;
		if (copied < min(bytes, copied + iov_iter_count(to))) {
			err = -EFAULT;
			break;
		}
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			break;
		}
		cond_resched();
	}
	iocb->ki_pos = pos;
	return done ?: err;
}

/* By write_begin and write_end, which fetch what is absent. */
static ssize_t write_present(struct kiocb *iocb, u64 pos, u64 bytes, struct iov_iter *from)
{
	size_t behind = iov_iter_count(from) - bytes;
	ssize_t n;

	iov_iter_truncate(from, bytes);
	iocb->ki_pos = pos;
	n = generic_perform_write(iocb, from);
	iov_iter_reexpand(from, iov_iter_count(from) + behind);
	return n;
}

/*
 * No inode lock: a write may wait for a fetch in the middle, and whoever waited
 * for the lock behind it could not be killed. Two writes of a page do not mix,
 * for each holds the folio's lock; a read takes none and may see a part of one.
 */
ssize_t rmem_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct rmem_region *region = iocb->ki_filp->private_data;
	ssize_t written = 0, n;
	u64 pos, bytes;

	if (!region)
		return -ENOTCONN;
	if (iocb->ki_flags & IOCB_NOWAIT)
		return -EAGAIN;
	if (!iov_iter_count(from))
		return 0;
	if (iocb->ki_flags & IOCB_APPEND)
		iocb->ki_pos = region->size;
	pos = iocb->ki_pos;
	if (pos >= region->size)
		return -ENOSPC;
	iov_iter_truncate(from, region->size - pos);
	do {
		n = 0;
		bytes = iov_iter_count(from);
		if (rmem_overwrite_piece(region, pos + written, &bytes))
			n = rmem_overwrite(region, pos + written, bytes, from);
		if (!n)
			n = write_present(iocb, pos + written, bytes, from);
		if (n > 0)
			written += n;
	} while (n > 0 && iov_iter_count(from));
	iocb->ki_pos = pos + written;
	return written ? generic_write_sync(iocb, written) : n;
}

static int rmem_write_begin(struct file *file, struct address_space *mapping, loff_t pos,
			    unsigned int len, rmem_write_target **target, void **fsdata)
{
	struct rmem_region *region = mapping->host->i_private;
	pgoff_t index = pos >> PAGE_SHIFT, end;
	struct folio *folio;
	int err;

again:
	for (;;) {
		folio = rmem_pages_get(region, index);
		if (!folio) {
			err = rmem_fetch_populate(region, index);
			if (err)
				return err;
			continue;
		}
		folio_lock(folio);
		if (folio->mapping == mapping && folio_contains(folio, index))
			break;
		folio_unlock(folio);
		folio_put(folio);
	}
	/* @len may exceed the folio; the caller then writes less */
	end = min_t(pgoff_t, DIV_ROUND_UP(pos + len, PAGE_SIZE), folio_next_index(folio));
	err = READ_ONCE(region->dead) ? -EIO : rmem_dirty_admit(region, index, end - index);
	if (err) {
		folio_unlock(folio);
		folio_put(folio);
		if (err == -EDQUOT)
			err = rmem_room_populate(region, RMEM_ROOM_DIRTY, end - index);
		if (!err)
			goto again;
		return err;
	}
	*target = rmem_target_of_folio(folio, index);
	return 0;
}

static int rmem_write_end(struct file *file, struct address_space *mapping, loff_t pos,
			  unsigned int len, unsigned int copied, rmem_write_target *target,
			  void *fsdata)
{
	struct folio *folio = rmem_folio_of_target(target);

	flush_dcache_folio(folio);
	/* even if nothing was copied: the dirty log has it */
	folio_mark_dirty(folio);
	folio_unlock(folio);
	folio_put(folio);
	return copied;
}

const struct address_space_operations rmem_aops = {
	.writepages		= rmem_writepages,
	.dirty_folio		= filemap_dirty_folio,
	.write_begin		= rmem_write_begin,
	.write_end		= rmem_write_end,
	.migrate_folio		= filemap_migrate_folio,
	.error_remove_folio	= generic_error_remove_folio,
};

loff_t rmem_llseek(struct file *file, loff_t offset, int whence)
{
	struct rmem_region *region = file->private_data;

	if (!region)
		return -ENOTCONN;
	/* where the holes are, only the store knows: all of it is data */
	return generic_file_llseek_size(file, offset, whence, region->size, region->size);
}

int rmem_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct rmem_region *region = file->private_data;

	if (!region)
		return -ENOTCONN;
	spin_lock(&region->lock);
	rmem_region_need(region);
	spin_unlock(&region->lock);
	/* a dump must not fetch a terabyte, nor hang on a dead server */
	vm_flags_set(vma, VM_DONTDUMP);
	vma->vm_ops = &rmem_vm_ops;
	return 0;
}

int rmem_fsync(struct file *file, loff_t start, loff_t end, int datasync)
{
	struct rmem_region *region = file->private_data;
	int err;

	if (!region)
		return -ENOTCONN;
	err = rmem_region_sync(region, start, end);
	trace_rmem_sync(region, start, end, err);
	return err;
}

/* A change of the range, as far as it lies in the region; @length 0: up to the end. */
static long change(struct rmem_region *region, u64 offset, u64 length,
		   int (*how)(struct rmem_region *region, u64 offset, u64 end))
{
	if (region->flags & RMEM_REGION_READ_ONLY)
		return -EROFS;
	if (offset >= region->size)
		return 0;
	if (!length || length > region->size - offset)
		length = region->size - offset;
	return how(region, offset, offset + length);
}

long rmem_fallocate(struct file *file, int mode, loff_t offset, loff_t len)
{
	struct rmem_region *region = file->private_data;

	if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		return change(region, offset, len, rmem_region_punch);
	if (!(mode & ~FALLOC_FL_KEEP_SIZE) && offset + len > region->size)
		return -EPERM;
	return -EOPNOTSUPP;
}

static long ioctl_info(struct rmem_region *region, unsigned long arg)
{
	struct rmem_ioc_info info;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(info) != 272);
	err = rmem_copy_args(&info, sizeof(info), sizeof(info), arg, &usize);
	if (err)
		return err;
	if (info.flags)
		return -EOPNOTSUPP;
	rmem_region_info(region, &info);
	info.size = usize;
	return copy_to_user((void __user *)arg, &info, sizeof(info)) ? -EFAULT : 0;
}

static long ioctl_unsafe(struct rmem_region *region, unsigned long arg)
{
	struct rmem_ioc_unsafe args;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(args) != 32);
	err = rmem_copy_args(&args, sizeof(args), sizeof(args), arg, &usize);
	if (err)
		return err;
	if (args.flags || args.__reserved)
		return -EOPNOTSUPP;
	if (!args.run_count || !PAGE_ALIGNED(args.offset))
		return -EINVAL;
	err = rmem_region_unsafe(region, &args);
	if (err)
		return err;
	args.size = usize;
	return copy_to_user((void __user *)arg, &args, sizeof(args)) ? -EFAULT : 0;
}

static long ioctl_range(struct file *file, unsigned int nr, unsigned long arg)
{
	struct rmem_region *region = file->private_data;
	struct rmem_ioc_range range;
	u32 usize;
	int err;

	BUILD_BUG_ON(sizeof(range) != 24);
	err = rmem_copy_args(&range, sizeof(range), sizeof(range), arg, &usize);
	if (err)
		return err;
	if (range.flags)
		return -EOPNOTSUPP;
	if (nr == _IOC_NR(RMEM_IOC_DROP)) {
		if (range.offset >= region->size)
			return 0;
		if (range.length >= region->size - range.offset)
			range.length = 0;
		return rmem_pages_drop(file, range.offset, range.length);
	}
	if (!(file->f_mode & FMODE_WRITE))
		return -EBADF;
	return change(region, range.offset, range.length,
		      nr == _IOC_NR(RMEM_IOC_OVERWRITE) ? rmem_overwrite_range : rmem_region_punch);
}

long rmem_file_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	/* pairs with the release of RMEM_IOC_ATTACH */
	struct rmem_region *region = smp_load_acquire(&file->private_data);
	unsigned int nr = rmem_ioctl_nr(cmd);

	switch (nr) {
	case _IOC_NR(RMEM_IOC_INFO):
		return region ? ioctl_info(region, arg) : -ENOTCONN;
	case _IOC_NR(RMEM_IOC_UNSAFE):
		return region ? ioctl_unsafe(region, arg) : -ENOTCONN;
	case _IOC_NR(RMEM_IOC_PUNCH):
	case _IOC_NR(RMEM_IOC_DROP):
	case _IOC_NR(RMEM_IOC_OVERWRITE):
		return region ? ioctl_range(file, nr, arg) : -ENOTCONN;
	default:
		return -ENOTTY;
	}
}

int rmem_file_release(struct inode *inode, struct file *file)
{
	if (file->private_data)
		rmem_region_release(file->private_data);
	return 0;
}
