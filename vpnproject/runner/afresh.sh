#!/bin/sh
# afresh.sh SOCKET... -- COMMAND...: become COMMAND, once the files of these unix sockets are gone. A program that was
# killed leaves them, and then the next one could not listen on them.
while [ "$1" != -- ]; do
    rm -f "$1"
    shift
done
shift
exec "$@"
