/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as the agent's state file. What is read of it, written down again and read, is the same: each
 * line that counts is one that the agent could have written. */
#include <config.h>

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fleetd/agent_record.h"
#include "tests/fuzz/file.h"
#include "tests/fuzz/fuzz.h"
#include "units/name.h"

struct seen {
    struct strbuf text;          /* All that was read, in words of our own. */
    struct agent_records *again; /* Where it is noted; NULL: nowhere. */
};

static void on_record(const char *name, const struct agent_record *record, void *data)
{
    struct seen *seen = data;

    assert(name[0] != '\0' && strlen(name) <= UNIT_NAME_MAX);
    if (record == NULL)
        strbuf_addf(&seen->text, "%s\n", name);
    else
        strbuf_addf(&seen->text, "%s '%s' %ju %ju %d %d '%s'\n", name, record->hash,
                    (uintmax_t)record->generation, (uintmax_t)record->asked, record->launched,
                    record->restart, record->result);
    if (seen->again != NULL)
        agent_records_note(seen->again, name, record);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[FUZZ_PATH_SIZE], again_path[FUZZ_PATH_SIZE];
    int fd = fuzz_file_new(data, size, path), again_fd;
    struct agent_records records, again = {.fd = -1};
    struct seen first = {.again = &again}, second = {0};
    struct strbuf text = {0};

    strbuf_add(&first.text, "");
    strbuf_add(&second.text, "");
    agent_records_open(&records, path, on_record, &first);
    strbuf_add(&text, "fleet-agent 1\n");
    if (again.pending.size > 0)
        strbuf_add_bytes(&text, again.pending.text, again.pending.size);
    again_fd = fuzz_file_new((const uint8_t *)text.text, text.size, again_path);
    strbuf_done(&again.pending);
    agent_records_open(&again, again_path, on_record, &second);
    assert(first.text.size == second.text.size &&
           memcmp(first.text.text, second.text.text, first.text.size) == 0);
    strbuf_done(&first.text);
    strbuf_done(&second.text);
    strbuf_done(&text);
    agent_records_done(&records);
    agent_records_done(&again);
    close(again_fd);
    close(fd);
    return 0;
}
