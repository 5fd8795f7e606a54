/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetd/lease_page.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"

struct lease_page {
    uint64_t until_ms;
};

int lease_page_open(const char *path, bool write, struct lease_page **ret, struct err *err)
{
    _cleanup_(closep) int fd =
        open(path, (write ? O_RDWR | O_CREAT : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW, 0644);
    void *page;
    int r;

    if (fd < 0)
        return err_set(err, -errno, "cannot open %s: %s", path, strerror(errno));
    /* Not ftruncate(): on a file system that is full, the first access would be a SIGBUS. */
    r = write ? posix_fallocate(fd, 0, sizeof(struct lease_page)) : 0;
    if (r != 0)
        return err_set(err, -r, "cannot make room for %s: %s", path, strerror(r));
    if (lseek(fd, 0, SEEK_END) < (off_t)sizeof(struct lease_page))
        return err_set(err, -EBADMSG, "%s is no lease", path);
    page =
        mmap(NULL, sizeof(struct lease_page), write ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return err_set(err, -errno, "cannot map %s: %s", path, strerror(errno));
    *ret = page;
    return 0;
}

void lease_page_close(struct lease_page *page)
{
    if (page != NULL)
        munmap(page, sizeof *page);
}

uint64_t lease_page_until_ms(const struct lease_page *page)
{
    return __atomic_load_n(&page->until_ms, __ATOMIC_SEQ_CST);
}

void lease_page_prolong(struct lease_page *page, uint64_t until_ms)
{
    if (until_ms > lease_page_until_ms(page))
        __atomic_store_n(&page->until_ms, until_ms, __ATOMIC_SEQ_CST);
}
