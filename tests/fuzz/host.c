/* SPDX-License-Identifier: Apache-2.0 */
#include <config.h>

#include "tests/fuzz/host.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "tests/fuzz/authority.h"
#include "tests/fuzz/conn.h"

static uv_loop_t loop;
static char directory[128];
static struct {
    struct pki_blob key, certificate, authority; /* As they stand in files. */
} made;                                          /* Once: keys take long. */

static void must(int r)
{
    if (r < 0)
        abort();
}

static void no_log(int priority, const char *message, const char *const *fields)
{
}

/* Not to the disk: nobody relies on it. */
static void put_file(const char *name, const struct pki_blob *content)
{
    _cleanup_(freep) char *path = xasprintf("%s/" CREDENTIALS_DIR "/%s", directory, name);
    _cleanup_(closep) int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    must(fd < 0 ? -errno : file_write_all(fd, content->data, content->size));
}

static void make_files(void)
{
    struct pki_blob root = fuzz_authority()->certificate;
    _cleanup_(pki_key_freep) struct pki_key *key = NULL;
    _cleanup_(pki_blob_done) struct pki_blob request = {0}, certificate = {0};

    must(pki_key_new(&key, NULL));
    must(pki_key_to_pem(key, &made.key, NULL));
    must(pki_request_new(key, &request, NULL));
    certificate = fuzz_authority_certify(FUZZ_HOST, &request);
    must(pki_to_pem(&certificate, 1, &made.certificate, NULL));
    must(pki_to_pem(&root, 1, &made.authority, NULL));
}

void fuzz_host_begin(struct daemon *daemon)
{
    const char *base = getenv("TMPDIR");
    _cleanup_(freep) char *credentials = NULL;

    log_set_sink(no_log);
    if (made.key.data == NULL)
        make_files();
    must(uv_loop_init(&loop));
    snprintf(directory, sizeof directory, "%s/fuzz-host.XXXXXX", base != NULL ? base : "/tmp");
    if (mkdtemp(directory) == NULL)
        abort();
    credentials = xasprintf("%s/" CREDENTIALS_DIR, directory);
    must(mkdir(credentials, 0700));
    put_file("host.key", &made.key);
    *daemon = (struct daemon){.loop = &loop};
    config_init(&daemon->config);
    free(daemon->config.data_dir);
    daemon->config.data_dir = xstrdup(directory);
    strcpy(daemon->identity.machine_id, FUZZ_HOST);
    daemon->identity.hostname = xstrdup("host-a");
    daemon->identity.public_ip = xstrdup("10.0.0.1");
    daemon->cluster_address = xstrdup("10.0.0.1:7390");
    fleet__register_machine__init(&daemon->machine);
}

void fuzz_host_certify(struct daemon *daemon)
{
    put_file("host.crt", &made.certificate);
    put_file("authority.crt", &made.authority);
    must(credentials_load(directory, &daemon->credentials, NULL));
}

static void check_lists(const struct strlist *a, const struct strlist *b)
{
    assert(a->count == b->count);
    for (size_t i = 0; i < a->count; i++)
        assert(streq(a->items[i], b->items[i]));
}

void fuzz_host_check(const struct daemon *daemon)
{
    struct credentials credentials;
    struct member member;
    struct err err = {0};
    int r = credentials_load(directory, &credentials, &err);

    assert(r >= 0);
    assert(credentials_complete(&credentials) == credentials_complete(&daemon->credentials));
    assert(credentials.root_count == daemon->credentials.root_count);
    credentials_done(&credentials);
    r = member_load(directory, &member, &err);
    assert(r == 0 || r == -ENOENT);
    if (r < 0)
        return;
    assert(memcmp(member.cluster_id, daemon->member.cluster_id, sizeof member.cluster_id) == 0);
    assert(history_equal(&member.history, &daemon->member.history));
    check_lists(&member.peers, &daemon->member.peers);
    member_done(&member);
}

void fuzz_host_turn(void)
{
    uv_update_time(&loop);
    uv_run(&loop, UV_RUN_NOWAIT);
}

struct conn *fuzz_host_dials(void (*on_sent)(const uint8_t *bytes, size_t size))
{
    static const Fleet__Welcome welcome = FLEET__WELCOME__INIT;
    const struct fuzz_conn_facts facts = {
        .info = {.name = {.kind = PKI_MACHINE, .id = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"}},
        .proved = true,
        .on_sent = on_sent};
    struct conn *conn;

    fuzz_conn_set(&facts);
    for (unsigned i = 0; i < 10 && fuzz_conn_dialled() == NULL; i++)
        fuzz_host_turn();
    conn = fuzz_conn_dialled();
    assert(conn != NULL);
    fuzz_conn_welcome(conn, &welcome);
    return conn;
}

void fuzz_host_end(struct daemon *daemon)
{
    struct err err = {0};
    int r;

    uv_run(&loop, UV_RUN_DEFAULT);
    r = uv_loop_close(&loop);
    assert(r == 0);
    must(member_forget(directory, &err));
    must(rmdir(directory));
    credentials_done(&daemon->credentials);
    member_done(&daemon->member);
    identity_done(&daemon->identity);
    config_done(&daemon->config);
    free(daemon->cluster_address);
}
