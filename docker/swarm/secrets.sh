#!/bin/sh
# Draws the stack's secrets and gives them to Swarm, once: `docker/swarm/secrets.sh [PREFIX]`. They are kept nowhere
# else; a secret can't be changed, so that new ones take another PREFIX and a deploy with SECRETS=PREFIX.
set -eu
prefix=${1:-plinth}

draw() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
put() { docker secret create "${prefix}_$1" - >/dev/null; }

password=$(draw)
printf %s "$password" | put database_password
printf 'postgres://plinth:%s@database:5432/plinth' "$password" | put database_url
password=$(draw)
printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy volatile-lfu\n' "$password" |
    put redis_conf
printf 'redis://:%s@redis:6379/0' "$password" | put redis_url
# What writes are authorized with: given, or drawn and told this once.
if [ -z "${API_TOKEN:-}" ]; then
    API_TOKEN=$(draw)
    echo "API_TOKEN=$API_TOKEN"
fi
printf %s "$API_TOKEN" | put api_token
