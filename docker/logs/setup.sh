#!/bin/bash
# Life cycle, template and data stream in Elasticsearch, the saved search in Kibana. Runs once; a second run changes nothing.
set -euo pipefail

send() { curl --fail --silent --show-error --retry 30 --retry-all-errors --retry-delay 2 --max-time 30 "$@" >/dev/null; }

json='Content-Type: application/json'
send -X PUT http://elasticsearch:9200/_ilm/policy/plinth -H "$json" --data-binary @/logs/elasticsearch/ilm-policy.json
send -X PUT http://elasticsearch:9200/_index_template/plinth -H "$json" --data-binary @/logs/elasticsearch/index-template.json
curl --fail --silent --max-time 30 http://elasticsearch:9200/_data_stream/plinth >/dev/null ||
    send -X PUT http://elasticsearch:9200/_data_stream/plinth
send -X POST 'http://kibana:5601/api/saved_objects/_import?overwrite=true' -H 'kbn-xsrf: true' \
    --form file=@/logs/kibana/saved.ndjson
