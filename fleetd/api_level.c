/* SPDX-License-Identifier: Apache-2.0 */
/* GET /level: the cluster's feature level, and what waits for the next ones. */
#include <config.h>

#include "fleetd/api_json.h"
#include "fleetd/api_private.h"

void api_level_get(struct api_request *request)
{
    unsigned now = registry_level(api_registry(request));
    json_t *json = json_object(), *waits = json_array();

    for (unsigned level = now + 1; level <= FEATURE_LEVEL; level++) {
        json_t *row = json_object();

        api_json_set_count(row, "level", level);
        api_json_set_text(row, "version", level_row(level)->version);
        api_json_set_text(row, "features", level_row(level)->features);
        json_array_append_new(waits, row);
    }
    json_object_set_new(json, "level", json_integer(now));
    json_object_set_new(json, "newest", json_integer(FEATURE_LEVEL));
    api_json_set_array(json, "waits", waits);
    api_answer_json(request, json);
}
