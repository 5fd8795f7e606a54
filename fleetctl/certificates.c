/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "fleetctl/certificates.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/str.h"
#include "base/times.h"
#include "fleetctl/output.h"
#include "pki/pki.h"

#define FILE_CERTIFICATES_MAX (1u + PKI_ROOTS_MAX)

struct file {
    struct pki_blob text;
    mode_t mode;
    struct pki_blob certificates[FILE_CERTIFICATES_MAX];
    size_t count;
};

static void file_done(struct file *file)
{
    pki_blob_done(&file->text);
    pki_blobs_done(file->certificates, file->count);
}

static bool given(const char *text)
{
    return text != NULL && text[0] != '\0';
}

/* ---- files ---- */

static int read_text(const char *path, struct file *ret, struct err *err)
{
    _cleanup_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    ssize_t n = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_set(err, -EINVAL, "%s: %s", path, strerror(errno));
    ret->mode = S_ISREG(st.st_mode) ? st.st_mode : 0;
    ret->text.data = xmalloc(PKI_PEM_MAX + 1);
    while (ret->text.size <= PKI_PEM_MAX &&
           (n = read(fd, ret->text.data + ret->text.size, PKI_PEM_MAX + 1 - ret->text.size)) > 0)
        ret->text.size += (size_t)n;
    if (n < 0)
        return err_set(err, -EINVAL, "%s: %s", path, strerror(errno));
    return ret->text.size > PKI_PEM_MAX
               ? err_set(err, -EINVAL, "%s: it is larger than %u bytes", path, PKI_PEM_MAX)
               : 0;
}

/* What it holds of certificates is only looked at: none is no error. */
static int read_file(const char *option, const char *path, struct file *ret, struct err *err)
{
    int r = read_text(path, ret, err);

    if (r < 0)
        return err_prefix(err, r, "--%s", option);
    if (pki_from_pem(ret->text.data, ret->text.size, ret->certificates, FILE_CERTIFICATES_MAX, &ret->count,
                     NULL) < 0)
        ret->count = 0;
    return 0;
}

static bool holds_key(const struct file *file)
{
    return memmem(file->text.data, file->text.size, "PRIVATE KEY-----", strlen("PRIVATE KEY-----")) != NULL;
}

/* A path of this process's own, for what is to be on no disk. */
static int keep(struct certificates *certificates, size_t place, const void *text, size_t size, char **ret,
                struct err *err)
{
    int fd = memfd_create("fleetctl", MFD_CLOEXEC);

    if (fd < 0 || write(fd, text, size) != (ssize_t)size) {
        int r = err_set(err, -EINVAL, "cannot keep a certificate in memory: %s", strerror(errno));

        if (fd >= 0)
            close(fd);
        return r;
    }
    certificates->fds[place] = fd;
    *ret = xasprintf("/proc/self/fd/%d", fd);
    return 0;
}

static int keep_certificates(struct certificates *certificates, size_t place, const struct pki_blob *list,
                             size_t count, char **ret, struct err *err)
{
    struct pki_blob pem = {0};
    int r = pki_to_pem(list, count, &pem, err);

    if (r >= 0)
        r = keep(certificates, place, pem.data, pem.size, ret, err);
    pki_blob_done(&pem);
    return r;
}

/* ---- checks ---- */

static char *moment(uint64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char text[64];

    if (localtime_r(&seconds, &tm) == NULL || strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm) == 0)
        return xstrdup("a time that nobody can write");
    return xstrdup(text);
}

static int check_own(const char *path, const struct pki_info *info, struct err *err)
{
    _cleanup_(freep) char *ended = moment(info->not_after_ms);

    if (info->name.kind == PKI_MACHINE)
        return err_set(err, -EINVAL,
                       "%s is the certificate of a host (machine %s), which has no say in the API: use a "
                       "client's (fleetctl client-cert makes one)",
                       path, info->name.id);
    if (info->name.kind != PKI_CLIENT)
        return err_set(err, -EINVAL, "%s does not begin with the certificate of a client", path);
    if (wall_ms() >= info->not_after_ms)
        return err_set(err, -EINVAL,
                       "the certificate of client %s in %s has ended at %s: have a new one made (fleetctl "
                       "client-cert)",
                       info->name.id, path, ended);
    return 0;
}

/* The key of the certificate, alone. */
static int pick_key(const char *path, const struct file *file, const struct pki_blob *certificate,
                    struct pki_blob *ret, struct err *err)
{
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    int r = holds_key(file) ? pki_key_from_pem(file->text.data, file->text.size, &key, err)
                            : err_set(err, -EINVAL, "there is none");

    if (r >= 0)
        r = pki_key_fits(key, certificate->data, certificate->size, err);
    if (r >= 0)
        r = pki_key_to_pem(key, ret, err);
    return r < 0 ? err_prefix(err, -EINVAL, "the private key in %s", path) : 0;
}

static int check_cluster(const char *path, const struct pki_blob *certificate, const char *roots_path,
                         const struct pki_blob *roots, size_t count, struct err *err)
{
    struct pki_info info;

    if (count == 0 || pki_verify(certificate, 1, roots, count, wall_ms(), &info, NULL) >= 0)
        return 0;
    return err_set(
        err, -EINVAL,
        "the certificate in %s is not signed by an authority in %s: are they of different clusters?", path,
        roots_path);
}

static void warn_readable(const char *path, const struct file *key)
{
    if ((key->mode & 077) != 0)
        complain("WARNING: the private key in %s can be read by others (chmod 600 %s)", path, path);
}

/* ---- all of it ---- */

/* A certificate that is not fleet's own: for a server that is something else, or stands before fleetd. */
static int use_others(const struct options *o, const char *key_path, const struct file *key,
                      struct certificates *ret, struct err *err)
{
    if (!given(o->key_file) && !holds_key(key))
        return err_set(err, -EINVAL, "%s holds no private key: --key-file must be given too", ret->file);
    ret->certificate = xstrdup(ret->file);
    ret->key = xstrdup(key_path);
    return 0;
}

static int use_fleets(const struct options *o, const struct file *own, const char *key_path,
                      const struct file *key, const struct pki_info *info, struct certificates *ret,
                      struct err *err)
{
    const struct pki_blob *roots = own->certificates + 1;
    _cleanup_(pki_blob_done) struct pki_blob key_pem = {0};
    int r = check_own(ret->file, info, err);

    if (r >= 0)
        r = pick_key(key_path, key, own->certificates, &key_pem, err);
    if (r >= 0 && !given(o->ca_file))
        r = check_cluster(ret->file, own->certificates, ret->file, roots, own->count - 1, err);
    if (r >= 0)
        r = keep_certificates(ret, 0, own->certificates, 1, &ret->certificate, err);
    if (r >= 0)
        r = keep(ret, 1, key_pem.data, key_pem.size, &ret->key, err);
    if (r >= 0 && !given(o->ca_file) && own->count > 1)
        r = keep_certificates(ret, 2, roots, own->count - 1, &ret->authorities, err);
    return r;
}

static int load_own(const struct options *o, struct certificates *ret, struct err *err)
{
    _cleanup_(file_done) struct file own = {0}, other = {0};
    const char *key_path = given(o->key_file) ? o->key_file : ret->file;
    const struct file *key = given(o->key_file) ? &other : &own;
    struct pki_info info;
    int r = read_file("cert-file", ret->file, &own, err);

    if (r >= 0 && given(o->key_file))
        r = read_file("key-file", o->key_file, &other, err);
    if (r < 0)
        return r;
    if (holds_key(key))
        warn_readable(key_path, key);
    if (own.count == 0 || pki_read(own.certificates[0].data, own.certificates[0].size, &info, NULL) < 0)
        return use_others(o, key_path, key, ret, err);
    return use_fleets(o, &own, key_path, key, &info, ret, err);
}

char *certificates_default_path(void)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (given(config) && config[0] == '/')
        return xasprintf("%s/" CERTIFICATES_DEFAULT, config);
    return given(home) ? xasprintf("%s/.config/" CERTIFICATES_DEFAULT, home) : NULL;
}

int certificates_load(const struct options *o, struct certificates *ret, struct err *err)
{
    _cleanup_(freep) char *fallback = certificates_default_path();

    *ret = (struct certificates){.fds = {-1, -1, -1}};
    if (given(o->key_file) && !given(o->cert_file))
        return err_set(err, -EINVAL, "--key-file needs --cert-file");
    if (given(o->ca_file) && access(o->ca_file, R_OK) < 0)
        return err_set(err, -EINVAL, "--ca-file: %s: %s", o->ca_file, strerror(errno));
    if (given(o->ca_file))
        ret->authorities = xstrdup(o->ca_file);
    if (given(o->cert_file))
        ret->file = xstrdup(o->cert_file);
    else if (fallback != NULL && access(fallback, F_OK) == 0)
        ret->file = TAKE_PTR(fallback);
    return ret->file != NULL ? load_own(o, ret, err) : 0;
}

void certificates_done(struct certificates *certificates)
{
    free(certificates->file);
    free(certificates->certificate);
    free(certificates->key);
    free(certificates->authorities);
    for (size_t i = 0; i < ARRAY_SIZE(certificates->fds); i++)
        if (certificates->fds[i] >= 0)
            close(certificates->fds[i]);
    *certificates = (struct certificates){.fds = {-1, -1, -1}};
}
