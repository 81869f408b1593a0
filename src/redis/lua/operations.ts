/**
 * The operations on a pool, and the frame that runs a request: load, validate, advance, run, tell whose turn it is, save.
 */
export const operations = `
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

local ops = {}

-- ['take', [r, i, o, t, priority], ...] -> [granted, 0 | ['wait', ms, d, turn] | ['exhausted', d, asked, left]]
function ops.take(S, me, op, now)
  local proc = procOf(S, me)
  local granted = {}
  if #op == 1 then proc.head = false end
  for i = 2, #op do
    local ask = op[i]
    local head = proc.head
    if head then
      head.prio, head.charge = ask[5], ask
    else
      -- A process that was served before goes on where its last call ended, so that all get the same; a new one starts
      -- where the head that is waited for stands, never before it.
      local first = proc.finish == 0 and firstHead(S, me)
      head = { tag = math.max(proc.finish, first and first.tag or S.virtual), turn = S.turn, prio = ask[5], charge = ask, ready = false }
      S.turn = S.turn + 1
    end
    while true do
      local first, owner = firstHead(S, me)
      if not first or before(head, first) then break end
      local wait = waitOf(S, first.charge, now) or 0
      if wait > 0 then first.ready = false elseif not first.ready then first.ready = now end
      if wait > 0 or now - first.ready < GRACE then
        proc.head = head
        local millis, d = foresee(S, head, me, now)
        -- Who is next looks whether the first one came; all others are told.
        if first.ready and isNext(S, head, me, owner) then millis = math.max(millis, first.ready + GRACE - now)
        else millis = 1.5 * millis + 3 * GRACE end
        return { granted, { 'wait', math.ceil(math.min(NET, millis)), d, head.turn } }
      end
      S.procs[owner].head = false
    end
    local wait, d = waitOf(S, ask, now)
    if not wait then
      proc.head = false
      return { granted, { 'exhausted', d, ask[d], math.max(0, S.buckets[d].level) } }
    end
    if wait > 0 then
      proc.head = head
      return { granted, { 'wait', wait == INF and NET or math.ceil(wait), d, head.turn } }
    end
    S.lastId = S.lastId + 1
    enterRoom(S, now)
    S.virtual = math.max(S.virtual, head.tag)
    proc.finish = head.tag + math.max(1e-9, dominantShare(S, ask))
    proc.head = false
    takeCharge(S, ask, now)
    local charge = { ask[1], ask[2], ask[3], ask[4] }
    redis.call('HSET', KEYS[2], idKey(S.lastId), cmsgpack.pack({ id = S.lastId, owner = me, at = now, charge = charge }))
    granted[#granted + 1] = { S.lastId, leftOf(S) }
  end
  return { granted, 0 }
end

-- ['settle', id, [used], succeeded]: unknown ids were settled before, or by the lease.
function ops.settle(S, me, op, now)
  local key, id, where = idKey(op[2]), op[2], KEYS[2]
  local raw = redis.call('HGET', where, key)
  if not raw then
    where = KEYS[3]
    raw = redis.call('HGET', where, key)
  end
  if not raw then return 0 end
  redis.call('HDEL', where, key)
  if where == KEYS[2] then leaveRoom(S, id, op[4], now) end
  local ok, entry = pcall(cmsgpack.unpack, raw)
  if not ok or type(entry) ~= 'table' then return 0 end
  settleCharge(S, id, entry.charge, op[3], entry.at, now)
  return 1
end

-- ['observe', [[limit, remaining, roundedTo] | false, ...], date | false, [id, left] | false]
function ops.observe(S, me, op, now)
  local answered, uncounted, output, others = op[4], 0, 0, 0
  if S.buckets[3] or op[2][3] then
    for _, entry in ipairs(entriesOf(KEYS[2])) do
      local reserved = math.max(0, entry.charge[3])
      if answered and entry.id == answered[1] then output = reserved
      else uncounted = uncounted + reserved end
    end
  end
  others = S.opened
  if answered and redis.call('HEXISTS', KEYS[2], idKey(answered[1])) == 1 then others = others - 1 end
  observe(S, op[2], op[3], {
    id = answered and answered[1] or S.lastId, left = answered and answered[2] or nil,
    output = output, uncounted = uncounted,
    idle = answered and answered[1] == S.lastId and others <= 0 or false
  }, now)
  return 0
end

-- ['pause', reason, millis, charge | false]
function ops.pause(S, me, op, now)
  cool(S, op[2], op[3], op[4], now)
  -- The provider's load is every process's own affair: it halves what that one has in flight.
  if op[2] ~= 'overload' then
    S.probe = { since = S.lastId, round = S.lastId, allowed = 1, open = 0 }
    S.heardAt = now
  end
  return 0
end

-- ['resize', limits | false, concurrency | 0]
function ops.resize(S, me, op, now)
  if op[2] then resize(S, op[2], now) end
  if op[3] ~= 0 then S.concurrency = op[3] end
  return 0
end

-- ['open', limits, headroom, [from, millis] | false, concurrency, text]: the latest word on what is configured counts.
function ops.open(S, me, op, now)
  if S.cfg ~= op[6] then
    if next(op[2]) ~= nil then resize(S, op[2], now) end
    S.cfg = op[6]
  end
  S.headroom, S.concurrency = op[3], op[5]
  return 0
end

-- ['join', [[id, age, [charge]], ...], [[level, age] | false, ...]]: what a process holds and remembers of a state that
-- was lost. Ids count up across states, so nothing is held twice.
function ops.join(S, me, op, now)
  for _, held in ipairs(op[2]) do
    local entry = { id = held[1], owner = me, at = now - held[2], charge = held[3] }
    if redis.call('HEXISTS', KEYS[3], idKey(held[1])) == 1 then redis.call('HDEL', KEYS[3], idKey(held[1])) end
    if redis.call('HSETNX', KEYS[2], idKey(held[1]), cmsgpack.pack(entry)) == 1 then S.opened = S.opened + 1 end
    S.lastId = math.max(S.lastId, held[1])
  end
  for d = 1, 4 do
    local b, known = S.buckets[d], op[3][d]
    if b and known and S.why ~= 'new' then
      local level = known[1] + b.rate * known[2]
      if b.rule.quota and S.bare then b.level = math.min(b.rule.capacity, level)
      else b.level = math.min(b.level, level) end
    end
  end
  if next(op[3]) ~= nil then S.bare = false end
  return 0
end

-- ['back', n, awayMillis, [[level, spent, [[age, amount], ...]] | false, ...], [[age, [charge]], ...]] -> ids
-- A process comes back from its local share. If nobody was here meanwhile, the level is what the shares of those that
-- are back add up to, and the pace their part; else what it spent is taken now, as debt if need be.
function ops.back(S, me, op, now)
  local parts = math.max(1, op[2])
  local outage = S.outage
  if outage and outage.till > now then outage.back = outage.back + 1
  elseif now - S.before > op[3] / 2 then
    outage = { back = 1, till = now + STEP, scale = S.pace.scale }
    S.outage = outage
  else outage = nil end
  for d = 1, 4 do
    local b, share = S.buckets[d], op[4][d]
    if b and share then
      if b.rule.quota or not outage then b.level = b.level - (b.rule.quota and share[2] or math.min(share[2], b.rule.capacity))
      elseif outage.back == 1 then b.level = math.min(b.level, share[1])
      else b.level = math.min(b.rule.capacity, b.level + math.max(0, share[1])) end
      for _, cell in ipairs(share[3]) do addToWindow(b, now - cell[1], cell[2]) end
    end
  end
  if outage then
    local scale = math.min(outage.scale, math.max(SLOWEST, outage.back / parts))
    if scale < 1 then withPace(S, scale, math.max(S.pace.growth, 1 - scale), now, 0, true)
    elseif S.pace.scale < 1 then withPace(S, 1, 0, now, 0, false) end
  end
  local ids = {}
  for i, held in ipairs(op[5]) do
    S.lastId, S.opened = S.lastId + 1, S.opened + 1
    redis.call('HSET', KEYS[2], idKey(S.lastId), cmsgpack.pack({ id = S.lastId, owner = me, at = now - held[1], charge = held[2] }))
    ids[i] = S.lastId
  end
  return ids
end

-- ['beat']: still there.
function ops.beat(S, me, op, now)
  prune(now)
  return 0
end

-- ['leave']: gone for good. What it has not settled returns when its lease is over.
function ops.leave(S, me)
  S.procs[me].head = false
  for _, entry in ipairs(entriesOf(KEYS[2])) do
    if entry.owner == me then return 0 end
  end
  S.procs[me] = nil
  return 0
end

-- ['snapshot'] -> the state
function ops.snapshot(S)
  return {
    configured = S.configured, headroom = S.headroom, buckets = S.buckets, cooldown = S.cooldown, pace = S.pace,
    lowered = S.lowered, corrected = S.corrected, doubt = S.doubt, date = S.date, toldAt = S.toldAt
  }
end

-- ['holders'] -> who is here, who waits for what, who holds what
function ops.holders(S, me, op, now)
  local held, procs = {}, {}
  for _, entry in ipairs(entriesOf(KEYS[2])) do
    local sum = held[entry.owner] or { 0, { 0, 0, 0, 0 } }
    held[entry.owner] = sum
    sum[1] = sum[1] + 1
    for d = 1, 4 do sum[2][d] = sum[2][d] + math.max(0, entry.charge[d]) end
  end
  for owner, proc in pairs(S.procs) do
    local sum = held[owner] or { 0, { 0, 0, 0, 0 } }
    procs[#procs + 1] = { owner, proc.till - now, sum[1], sum[2], proc.head and proc.head.charge or false }
  end
  return { procs, S.opened, permits(S) >= INF and -1 or permits(S), S.why, redis.call('HLEN', KEYS[3]) }
end

-- KEYS: state, open, lost, seen. ARGV: 1 owner ('' only looks), 2 request, 3 start of the channels, 4 pool, 5 lease,
-- 6 what becomes of what a lost process held.
-- Request: [seq, epoch known, rules version known, [operation, ...], how late the last reply was heard].
-- Reply: [now, epoch, processes, why, rules version, rules | 0, levels, replies, turn, tight], or [now, 0] when the request
-- must be sent again with 'open' and 'join' in front: the state is missing, or not the one that the process knows.
local me, request = ARGV[1], cjson.decode(ARGV[2])
local lease, refund = tonumber(ARGV[5]), ARGV[6] == 'refund'
local seq, list = request[1], request[4]
local watching = me == ''
local now = clock()

if not watching then
  local seen = redis.pcall('HGET', KEYS[4], me)
  if type(seen) == 'string' then
    local done, reply = string.match(seen, '^(%d+) (.*)$')
    done = tonumber(done)
    -- The same request again, because its reply was lost: nothing is done twice.
    if done == seq then return reply end
    if done and done > seq then return redis.error_reply('STALE request ' .. seq .. ' after ' .. done) end
  end
end

local S, why = load()
if not S then
  if watching or list[1][1] ~= 'open' then return '[' .. json(now) .. ',0]' end
  if why == 'new' and request[2] ~= 0 then why = 'wiped' end
  S = create(list[1], now, why, lease)
  -- What is still held has a process that can say so.
  for _, entry in ipairs(entriesOf(KEYS[2])) do
    S.opened = S.opened + 1
    procOf(S, entry.owner).till = S.quiet
  end
end

-- The pool's own time never steps back: where the server's clock does, it goes on from where it stood. When the clock has
-- caught up with it, it is followed again, because what it makes up for is not time that has passed.
if now >= S.now then S.offset = 0
elseif now + S.offset < S.now then S.offset = S.now - now end
local time = now + S.offset
S.before = S.now
-- Nobody was heard for long: the server was away, not everybody dead. Leases start anew.
if time - S.now > lease / 2 then
  S.quiet = time + lease
  for _, proc in pairs(S.procs) do proc.till = math.max(proc.till, time + lease) end
end
S.now = time
now = time
advance(S, now)

if not watching then
  if redis.call('HLEN', KEYS[2]) ~= S.opened then
    -- Reservations were lost: everybody says again what they hold.
    S.opened, S.probe = redis.call('HLEN', KEYS[2]), false
    S.epoch, S.why = math.max(S.epoch + 1, math.floor(now * 1000)), 'damaged'
  end
  if request[2] ~= S.epoch and list[1][1] ~= 'open' then
    save(S, 3600000)
    return '[' .. json(now) .. ',0]'
  end
  procOf(S, me).till = now + lease
  hearLate(S, request[5], now)
  reap(S, now, refund)
end

local replies, turn = {}, -1
for i, op in ipairs(list) do replies[i] = ops[op[1]](S, me, op, now) end
if not watching then turn = notify(S, me, list[#list][1] == 'take', now) end

local processes = 0
for _ in pairs(S.procs) do processes = processes + 1 end
local rules, levels, longest = 0, {}, 3600000
if request[3] ~= S.rv then
  rules = {}
  for d = 1, 4 do rules[d] = S.buckets[d] and S.buckets[d].rule or false end
end
for d = 1, 4 do
  local b = S.buckets[d]
  levels[d] = b and b.level or false
  if b and b.rate > 0 then longest = math.max(longest, 2 * (b.rule.capacity - b.level) / b.rate) end
  if b and b.rule.quota then longest = math.max(longest, 2592000000) end
end
local reply = json({ now, S.epoch, processes, S.why, S.rv, rules, levels, replies, turn, isTight(S) and 1 or 0 })
if not watching then
  -- A debt that takes ages to refill is longer than Redis can count: 30 years will do.
  local keep = string.format('%.0f', math.min(longest + 4 * lease, 946080000000))
  save(S, keep)
  redis.call('PEXPIRE', KEYS[2], keep)
  redis.call('PEXPIRE', KEYS[3], keep)
  if S.procs[me] then
    redis.call('HSET', KEYS[4], me, seq .. ' ' .. reply)
    redis.call('PEXPIRE', KEYS[4], keep)
  else
    redis.call('HDEL', KEYS[4], me)
  end
end
return reply
`
