/**
 * The frame that runs a request: load, validate, move on in time, run, tell whose turn it is, save.
 */
export const request = `
local function json(v)
  local kind = type(v)
  if kind == 'number' then
    if v >= INF then return '1e308' elseif v <= -INF then return '-1e308' elseif v ~= v then return 'null' end
    return string.format('%.17g', v)
  elseif kind == 'string' then return cjson.encode(v)
  elseif kind == 'boolean' then return v and 'true' or 'false'
  elseif kind == 'table' then
    local parts = {}
    if v[1] ~= nil or next(v) == nil then
      for i = 1, #v do parts[i] = json(v[i]) end
      return '[' .. table.concat(parts, ',') .. ']'
    end
    for key, value in pairs(v) do parts[#parts + 1] = cjson.encode(tostring(key)) .. ':' .. json(value) end
    return '{' .. table.concat(parts, ',') .. '}'
  end
  return 'null'
end

-- KEYS: state, open, lost, seen. ARGV: 1 owner ('' only looks), 2 request, 3 start of the channels, 4 lease, 5 what
-- becomes of what a lost process held.
-- Request: [seq, epoch known, version known, [operation, ...], how late the last reply was heard].
-- Reply: [now, epoch, processes, why, version, [rules, configuration] | 0, levels, replies, turn, tight], or [now, 0] when the
-- request must be sent again with 'open' and 'join' in front: the state is missing, or not the one that the process knows,
-- or it does not know the process.
local me, request = ARGV[1], cjson.decode(ARGV[2])
local lease, refund = tonumber(ARGV[4]), ARGV[5] == 'refund'
local seq, list = request[1], request[4]
local watching, introduces = me == '', list[1][1] == 'open'

-- The last request of this process that is known here, and what was replied.
local function lastSeen()
  local seen = redis.pcall('HGET', SEEN, me)
  local done, reply = string.match(type(seen) == 'string' and seen or '', '^(%d+) (.*)$')
  return tonumber(done) or seq - 1, reply
end

-- A new state, as good as what is known of the last one.
local function createFor(open, why, now)
  if why == 'new' and request[2] ~= 0 then why = 'wiped' end
  -- Whatever else lies under our names is in the way.
  for _, key in ipairs({ OPEN, LOST, SEEN }) do
    if not isHashOrNothing(key) then redis.call('DEL', key) end
  end
  local S = create(open, now, why, lease)
  -- What is still held has a process that can say so.
  for _, entry in ipairs(entriesOf(OPEN)) do
    count(S, entry)
    procOf(S, entry.owner).till = S.quiet
  end
  for _, owner in ipairs(redis.call('HKEYS', SEEN)) do
    if not S.procs[owner] then S.gone[owner] = now end
  end
  return S
end

-- The pool's own time never steps back: where the server's clock does, it goes on from where it stood. When the clock has
-- caught up with it, it is followed again, because what it makes up for is not time that has passed.
local function ownTime(S, now)
  if now >= S.now then S.offset = 0
  elseif now + S.offset < S.now then S.offset = S.now - now end
  return now + S.offset
end

local function moveOn(S, time)
  if time - S.now > GAP then S.gap = { S.now, time } end
  -- Nobody was heard for long: the server was away, not everybody dead. Leases start anew.
  if time - S.now > lease / 2 then
    S.quiet = time + lease
    for _, proc in pairs(S.procs) do proc.till = math.max(proc.till, time + lease) end
  end
  S.now = time
  advance(S, time)
end

-- Reservations were lost, or requests, where a replica has taken the place of its master before it had heard them:
-- everybody says again what they hold. Who knows another epoch will do so anyway.
local function lookForLosses(S, done, now)
  local held = redis.call('HLEN', OPEN)
  if held == S.opened and (done == seq - 1 or request[2] ~= S.epoch) then return end
  S.probe = false
  recount(S)
  S.epoch, S.why = math.max(S.epoch + 1, math.floor(now * 1000)), 'damaged'
end

local function replyOf(S, now, replies, turn)
  local processes, rules, levels = 0, {}, {}
  for _ in pairs(S.procs) do processes = processes + 1 end
  for d = 1, 4 do
    local b = S.buckets[d]
    levels[d], rules[d] = b and b.level or false, b and b.rule or false
  end
  -- Whoever introduces himself may know the same version of another state.
  local news = (introduces or request[3] ~= S.rv) and { rules, configurationOf(S) } or 0
  return json({ now, S.epoch, processes, S.why, S.rv, news, levels, replies, turn, isTight(S) and 1 or 0 })
end

-- For how long a state is kept that nobody touches: until its debts are refilled, and a month where there is a quota.
local function keepFor(S)
  local longest = KEEP_IDLE
  for d = 1, 4 do
    local b = S.buckets[d]
    if b and b.rate > 0 then longest = math.max(longest, 2 * (b.rule.capacity - b.level) / b.rate) end
    if b and b.rule.quota then longest = math.max(longest, KEEP_QUOTA) end
  end
  return string.format('%.0f', math.min(longest + 4 * lease, KEEP_LONGEST))
end

local function save(S)
  local packed, keep = cmsgpack.pack(S), keepFor(S)
  redis.call('SET', STATE, redis.sha1hex(packed) .. packed, 'PX', keep)
  for _, key in ipairs({ OPEN, LOST, SEEN }) do redis.call('PEXPIRE', key, keep) end
end

local function run()
  local done, reply = lastSeen()
  -- The reply was lost: nothing is done twice.
  if done == seq then return reply end
  if done > seq then return redis.error_reply('STALE request ' .. seq .. ' after ' .. done) end
  local now = clock()
  local S, why = load()
  if not S then
    if watching or not introduces then return '[' .. json(now) .. ',0]' end
    S = createFor(list[1], why, now)
  end
  now = ownTime(S, now)
  moveOn(S, now)
  if not watching then
    lookForLosses(S, done, now)
    local isKnown = S.procs[me] or S.gone[me]
    if (request[2] ~= S.epoch or not isKnown) and not introduces then
      save(S)
      return '[' .. json(now) .. ',0]'
    end
    procOf(S, me).till, S.gone[me] = now + lease, nil
    hearLate(S, request[5], now)
    reap(S, now, refund)
  end
  local replies = {}
  for i, op in ipairs(list) do replies[i] = ops[op[1]](S, me, op, now) end
  if watching then return replyOf(S, now, replies, -1) end
  reply = replyOf(S, now, replies, notify(S, me, list[#list][1] == 'take', now))
  if S.procs[me] then redis.call('HSET', SEEN, me, seq .. ' ' .. reply) else redis.call('HDEL', SEEN, me) end
  save(S)
  return reply
end

return run()
`
