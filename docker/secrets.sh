# Draws what is missing of the secrets, each into the folder that its reader mounts; a second run changes nothing.
set -euo pipefail
umask 077

draw() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

# Folder, owner and file; the text is read from stdin. Complete or not there.
put() {
    rm -f "/secrets/$1/.new"
    cat >"/secrets/$1/.new"
    chmod 400 "/secrets/$1/.new"
    chown "$2:$2" "/secrets/$1/.new"
    mv "/secrets/$1/.new" "/secrets/$1/$3"
}

# 999 is the user of the images of Postgres and of Redis, 1001 the service, 99 HAProxy, 472 Grafana, 65534 and 59000 the
# exporters of Postgres and Redis.
if [ ! -e /secrets/service/api_token ]; then
    password=$(draw)
    printf %s "$password" | put database 999 password
    printf 'postgres://plinth:%s@database:5432/plinth' "$password" | put service 1001 database_url
    printf %s "$password" | put monitoring 65534 postgres
    password=$(draw)
    printf %s "$password" | put redis 999 password
    printf 'requirepass %s\nsave ""\nappendonly no\nmaxmemory 256mb\nmaxmemory-policy volatile-lfu\n' "$password" |
        put redis 999 redis.conf
    printf 'redis://:%s@redis:6379/0' "$password" | put service 1001 redis_url
    printf '{"redis://redis:6379":"%s"}' "$password" | put monitoring 59000 redis.json
    draw | put monitoring 472 grafana
    # Last: it says that all the others are there.
    draw | put service 1001 api_token
fi
chown 99:99 /balancer
