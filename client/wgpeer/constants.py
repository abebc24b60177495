"""Every time and size limit of the client, each with its reason. Times are seconds.

From a host's death to the new tunnel, at worst: ``ping_interval`` (10 by default) until the next ping is due, plus
``PING_CONNECTS`` (2.2) until it counts as lost, plus one connect to a living host (well under 1): 13 seconds.
"""

# --- connecting -------------------------------------------------------------------------------------------------------
CONNECT_TIMEOUT = 3.0  # TCP and TLS to one address. A dead address costs this much of a failover, so it is short
# A host confirms a connect, about a second each, and several may be tried behind one request. Before that a connect may
# wait for its turn: when a host has died all its clients come at once. Who leaves sooner has waited for nothing.
RESPONSE_TIMEOUT = 30.0
# A machine that dies, or the way to it, while we wait for its answer: it is asked after so many seconds without a word
# of its, by TCP itself and each second, and left after so many without an answer to that.
ALIVE_AFTER, ALIVE_EVERY, ALIVE_WITHIN = 2, 1, 5
PUSH_RESPONSE_TIMEOUT = 90.0  # a person must take the phone out of the pocket, within a minute
SIGN_IN_RESPONSE_TIMEOUT = 50.0  # the server holds each wait for the sign-in up to about 20
SIGN_IN_TIMEOUT = 90.0  # then nobody is there
SIGN_IN_PAUSE = 1.0  # between two waits, should a server answer at once instead of holding the request
MAX_SIGN_INS = 4  # one after the other, for one connect: single sign-on, a passkey; no server can ask for ever
RESOLVE_TIMEOUT = 2.0  # a resolver behind a dead tunnel must not stop a failover
DNS_CACHE_TTL = 3600.0  # resolved addresses of API hosts are kept this long: DNS may be gone with the tunnel
MAX_ADDRESSES = 8  # of one name, old and new together: each may cost a failover CONNECT_TIMEOUT
MAX_LOOKUPS = 8  # names looked up at the same time

ROUND_PAUSE = 7.0  # all hosts failed: the whole round again
ROUND_PAUSE_LATER = 30.0  # ... and when that lasted ROUND_PATIENCE, less often
ROUND_PATIENCE = 300.0
# Share of a pause that is random, half of it either way: those whose hosts fail at the same moment come back over as
# long a time as the pause, and not all in one second.
ROUND_JITTER = 1.0
# Share that is added at random to a pause that an answer asked for: others were told the same.
ASKED_JITTER = 0.5
# A wrong clock (408) or a server without room (429) does not mend itself in seconds. Unless the answer says how long.
BACK_OFF = {408: 30.0, 429: 30.0}
RETRY_AFTER_MAX = 300.0  # no response can send us away for longer

SHORT_CONNECTION = 30.0  # one that ended sooner, and not by its host's death, did not help: wait, doubling
RECONNECT_PAUSE = 1.0
RECONNECT_PAUSE_MAX = 60.0

# --- renewing a session that ends -------------------------------------------------------------------------------------
RENEW_AHEAD = 600.0  # a person may have to sign in meanwhile; the server takes nothing sooner than 900 before the end
RENEW_SHARE = 0.25  # of the whole session, where that is shorter
RENEW_JITTER = 0.5  # share of this that is random: sessions that end at a time of day must not be renewed at one moment
RENEW_RETRY = 30.0  # after a try that nobody allowed
# From the answer that allows to the first ping by the new key. A host lets the old one go on for 10.
RENEW_WITHIN = 15.0

# --- pinging ----------------------------------------------------------------------------------------------------------
PING_INTERVAL_MIN = 5.0  # whatever the server says
HANDSHAKE_ATTEMPTS = 2  # before the first ping; WireGuard by itself repeats a handshake only after 5 s
HANDSHAKE_POLL = 0.02
HANDSHAKE_POLLS = 50  # one second for each: longer than any way round the world
NAME_FREE_POLLS = 100  # times HANDSHAKE_POLL: so long a WireGuard process may take to end with its interface
# Of the tries of one ping, how long each waits for the TCP connection. None came: the host is dead, or the way to it.
# The first is given up early, so that what was lost is sent again sooner than TCP would by itself; the last leaves room
# for a way that is as long as that.
PING_CONNECTS = (0.7, 1.5)
PING_RESPONSE_TIMEOUT = 3.0  # of one try as a whole: it connects, so the host lives, and may be busy
FIRST_PING_RESPONSE_TIMEOUT = 8.0  # the first one waits for the WireGuard handshake, which is repeated after 5
PING_RETRY_PAUSE = 1.0  # the host answers, but with a fault of its own (5xx, refused): it is alive, so be patient
PING_RETRIES = 8  # then: where it answers by HTTP one for each interval, where it does not it is left
PING_RETRY_LIMIT = 15.0
MAX_SLEEP = 1.0  # the longest sleep in one piece; sleeping clocks stand still during suspend, so look again

# --- configuration sync -----------------------------------------------------------------------------------------------
SYNC_INTERVAL = 3600.0
SYNC_RETRY = 360.0  # after one that failed
SYNC_JITTER = 0.2  # share of these that is random, so that those who connected together do not stay together
SYNC_FIRST = 5.0  # after the connect, when traffic has settled
SYNC_TIMEOUT = 5.0  # shorter than a ping interval: a sync never costs a ping

# --- sizes ------------------------------------------------------------------------------------------------------------
MAX_RESPONSE = 1024 * 1024  # bytes of an API response
MAX_PROFILE = 256 * 1024  # bytes of one profile file
MAX_ARCHIVE = 4 * 1024 * 1024  # bytes of an archive or an import response
MAX_PROFILES = 64  # profiles in one import
MAX_ROUTES = 4096

# --- network ----------------------------------------------------------------------------------------------------------
TUNNEL_OVERHEAD = 80  # bytes of WireGuard, UDP and IPv6 around a packet: what the outer path's MTU loses
MTU_MIN, MTU_MAX = 1280, 8920  # IPv6 needs the one; the other is Ethernet's largest frame, less the cost
MAX_METRIC = 0x7FFFFFFF  # of a route, as the server gives it
SOCKET_MARK = 0x77677077  # on our packets that must stay outside every tunnel of ours
COPY_MARK = 0x77677078  # on a packet that leaves by the old key, while it leaves by the new one too
TABLE_BASE = 77600  # routing tables: two for each interface
RULE_PRIORITY = 30400  # three rules for each interface and family, before the main table (32766)
FALLBACK_PRIORITY = 32800  # one more for each, behind it
MAX_INTERFACES = 100

# --- what others change -----------------------------------------------------------------------------------------------
WATCH_SETTLE = 0.05  # from the first notification to reading: a change of the network comes as many
WATCH_RETRY = 1.0  # when a repair failed
REPAIR_QUIET = 60.0  # the same repair is logged no more often: another program may undo it for ever
