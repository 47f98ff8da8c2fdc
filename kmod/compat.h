/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Every difference between the kernels rmem supports; no other file tests for
 * one. The code reads as the newest supported kernel (6.12); what stands here
 * gives older ones the same names. Force-included by Kbuild.
 */
#ifndef _RMEM_COMPAT_H
#define _RMEM_COMPAT_H

#include <linux/version.h>

#include <linux/device.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <net/sock.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "rmem needs Linux 6.1 or newer"
#endif

/* 4609e1f18e19 "fs: port ->permission() to pass mnt_idmap", 6.3 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
#define mnt_idmap user_namespace
#define nop_mnt_idmap init_user_ns
#endif

/* 1c71222e5f23 "mm: replace vma->vm_flags direct modifications", 6.3 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma, vm_flags_t flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/* 1235ccd05b6d "mm: handle faults under the VMA lock", 6.6: a fault holds one of two locks */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
static inline void release_fault_lock(struct vm_fault *vmf)
{
	mmap_read_unlock(vmf->vma->vm_mm);
}
#endif

/* 66dabbb65d67 "mm: return an ERR_PTR from __filemap_get_folio", 6.4 */
static inline struct folio *rmem_find_folio(struct address_space *mapping, pgoff_t index)
{
	struct folio *folio = filemap_get_folio(mapping, index);

	return IS_ERR_OR_NULL(folio) ? NULL : folio;
}

/* c6585011bc1d "splice: Remove generic_file_splice_read()", 6.5 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define copy_splice_read generic_file_splice_read
#endif

/* 1da86618bdce "fs: Convert aops->write_begin to take a folio", 6.12 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 12, 0)
#define rmem_write_target struct page
#define rmem_target_of_folio(folio, index) folio_file_page(folio, index)
#define rmem_folio_of_target(page) page_folio(page)
#else
#define rmem_write_target struct folio
#define rmem_target_of_folio(folio, index) (folio)
#define rmem_folio_of_target(folio) (folio)
#endif

/* af7628d6ec19 "fs: convert error_remove_page to error_remove_folio", 6.8 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define error_remove_folio error_remove_page
#define generic_error_remove_folio generic_error_remove_page
#endif

/* 1aaba11da9aa "driver core: class: remove module * from class_create()", 6.4 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 4, 0)
#define rmem_class_create(name) class_create(THIS_MODULE, name)
#else
#define rmem_class_create(name) class_create(name)
#endif

/* 077c212f0344 "fs: new accessor methods for atime and mtime", 6.7 */
static inline void rmem_inode_init_times(struct inode *inode)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	struct timespec64 now = current_time(inode);

	inode->i_atime = now;
	inode->i_mtime = now;
	inode->i_ctime = now;
#else
	simple_inode_init_ts(inode);
#endif
}

/* a9b12f8b4ee5 "driver core: make struct device_type.devnode() take a const *", 6.2 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define rmem_devnode_device struct device
#else
#define rmem_devnode_device const struct device
#endif

/*
 * 30dac24e14b5 "fs/writeback: convert wbc_account_cgroup_owner to take a folio",
 * 6.14, is in some stable kernels as well. A folio begins with its first page.
 */
#define rmem_account_cgroup_owner(wbc, folio, bytes) \
	wbc_account_cgroup_owner(wbc, (void *)(folio), bytes)

/*
 * 4d510f3da4c2 "mm: add private field to first subpage", 6.2, made
 * folio_mapcount() usable by modules; before, its large case is not exported.
 */
static inline int rmem_folio_mapcount(struct folio *folio)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	int count = folio_test_large(folio) ? folio_entire_mapcount(folio) : 0;
	long i;

	for (i = 0; i < folio_nr_pages(folio); i++)
		count += atomic_read(&folio_page(folio, i)->_mapcount) + 1;
	return count;
#else
	return folio_mapcount(folio);
#endif
}

/*
 * 98123866fcf3 "net: Introduce sk_use_task_frag in struct sock", 6.2: what a socket's
 * own pages are; before, those without __GFP_FS in sk_allocation have them.
 */
static inline void rmem_sock_own_frag(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	sk->sk_use_task_frag = false;
#endif
}

/* 2f0584f3f4bd "mm: Rename arch pte_mkwrite()'s to pte_mkwrite_novma()", 6.6 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 6, 0)
#define rmem_pte_mkwrite(pte) pte_mkwrite(pte)
#else
#define rmem_pte_mkwrite(pte) pte_mkwrite_novma(pte)
#endif

/* Hidden, and only there if something selects it (vmwgfx); without it nothing is ever opened. */
#ifdef CONFIG_MAPPING_DIRTY_HELPERS
#define rmem_can_see_stores() true
#else
#define rmem_can_see_stores() false

static inline unsigned long wp_shared_mapping_range(struct address_space *mapping,
						    pgoff_t first_index, pgoff_t nr)
{
	return 0;
}

static inline unsigned long clean_record_shared_mapping_range(struct address_space *mapping,
							      pgoff_t first_index, pgoff_t nr,
							      pgoff_t bitmap_pgoff,
							      unsigned long *bitmap,
							      pgoff_t *start, pgoff_t *end)
{
	return 0;
}
#endif

#endif /* _RMEM_COMPAT_H */
