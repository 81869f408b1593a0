/**
 * What a pool's state knows of the processes that share it: whose head waits in which place, who is alive, what is held,
 * and what to do with a state that is missing, partial or corrupt.
 */
export const fleet = `
local STATE, OPEN, LOST, SEEN = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- A head that could go and whose process does not come is passed over after this time.
local GRACE = 250
-- A time in which nobody was heard is remembered from this length on: the server may have been away.
local GAP = 1000
-- The net under the wakes: nobody sleeps longer without asking.
local NET = 5000
-- What a lost process held can still be settled for so long, and its last request is not done again.
local KEEP_LOST = 600000
-- For how long a state is kept that nobody touches: an hour, a month where a quota must not be forgotten, and 30 years
-- where a debt takes longer than Redis can count.
local KEEP_IDLE, KEEP_QUOTA, KEEP_LONGEST = 3600000, 2592000000, 946080000000

local function isNumber(v) return type(v) == 'number' and v == v and v < INF and v > -INF end

-- A state is used only if it is whole.
local function isWhole(S)
  if type(S) ~= 'table' or S.whole ~= true then return false end
  for _, name in ipairs({ 'epoch', 'now', 'offset', 'headroom', 'rv', 'lastId', 'virtual', 'turn', 'opened', 'output', 'concurrency', 'quiet',
    'heardAt', 'toldAt', 'late', 'lateAt' }) do
    if not isNumber(S[name]) then return false end
  end
  for _, name in ipairs({ 'configured', 'buckets', 'procs', 'gone' }) do
    if type(S[name]) ~= 'table' then return false end
  end
  if type(S.given) ~= 'table' or type(S.changedAt) ~= 'table' then return false end
  if type(S.lowered) ~= 'table' or type(S.corrected) ~= 'table' or type(S.doubt) ~= 'table' then return false end
  if type(S.pace) ~= 'table' or not isNumber(S.pace.scale) or not isNumber(S.pace.calls) or S.pace.scale <= 0 or S.pace.scale > 1 then return false end
  for d = 1, 4 do
    local b = S.buckets[d]
    if S.configured[DIMENSIONS[d]] and not b then return false end
    if not isNumber(S.lowered[d]) or not (S.corrected[d] == false or isNumber(S.corrected[d])) then return false end
    if b then
      if type(b) ~= 'table' or type(b.rule) ~= 'table' or type(b.cells) ~= 'table' or #b.cells % 2 ~= 0 then return false end
      if not (isNumber(b.rule.capacity) and isNumber(b.rule.rate) and isNumber(b.rule.most)) then return false end
      if not (isNumber(b.level) and isNumber(b.at) and isNumber(b.rate) and isNumber(b.reserve)) then return false end
      if b.level > b.rule.capacity or b.at > S.now then return false end
    end
  end
  return true
end

local function isHashOrNothing(key) return type(redis.pcall('HLEN', key)) == 'number' end

-- Reads the state: it, or nil and why ('new', 'wiped', 'damaged'). Its checksum stands before it.
local function load()
  if not (isHashOrNothing(OPEN) and isHashOrNothing(LOST) and isHashOrNothing(SEEN)) then return nil, 'damaged' end
  local raw = redis.pcall('GET', STATE)
  if type(raw) == 'string' then
    local packed = string.sub(raw, 41)
    if redis.sha1hex(packed) == string.sub(raw, 1, 40) then
      local ok, S = pcall(cmsgpack.unpack, packed)
      if ok and isWhole(S) then return S end
    end
    return nil, 'damaged'
  end
  return nil, redis.call('EXISTS', STATE, OPEN, LOST, SEEN) > 0 and 'wiped' or 'new'
end

-- What processes are started with and may change, each by itself. Who was started without limits or a bound has no word
-- on them.
local SETTINGS = { 'limits', 'headroom', 'concurrency' }
local function hasWord(given, i) return given[i] ~= '{}' and given[i] ~= -1 end

local function neverChanged(given)
  local at = {}
  for i = 1, #SETTINGS do at[i] = hasWord(given, i) and 0 or -1 end
  return at
end

-- A state that was lost is not read as full: its levels start at zero, and its windows as if the last one had been
-- used evenly. What processes still hold and remember they bring back when they join.
local function create(open, now, why, lease)
  local said, ramp = open[2], open[3]
  local S = {
    whole = true, epoch = math.floor(now * 1000), why = why, now = now, offset = 0,
    concurrency = said.concurrency, probe = false, rv = 1, given = said.given,
    changedAt = said.changedAt or neverChanged(said.given),
    lastId = math.floor(now * 1000), virtual = 0, turn = 0, opened = 0, output = 0,
    procs = {}, gone = {}, notified = false, quiet = now + lease, heardAt = now, late = 0, lateAt = now
  }
  makeLedger(S, said.limits, said.headroom, ramp, now)
  if why ~= 'new' then
    for d = 1, 4 do
      local b = S.buckets[d]
      if b and not b.rule.quota then
        b.level = 0
        if b.rule.max then
          local index = math.floor(now / (b.rule.millis / CELLS))
          for i = index - CELLS + 1, index do
            b.cells[#b.cells + 1] = i
            b.cells[#b.cells + 1] = b.rule.max / CELLS
          end
        end
      elseif b then
        -- Nobody knows how much of a quota was spent: whoever joins says what was left.
        b.level = 0
      end
    end
    S.bare = true
  end
  return S
end

-- What the pool is configured with, what the processes were started with, and when each setting was last changed: 0 when
-- never, -1 where nobody had a word on it. Each process remembers it as it was told, and says it again of a state that was
-- lost.
local function configurationOf(S)
  return { limits = S.configured, headroom = S.headroom, concurrency = S.concurrency, given = S.given, changedAt = S.changedAt }
end

local function configure(S, change, now)
  if change.limits then resize(S, change.limits, now) end
  if change.headroom then
    S.headroom = change.headroom
    for d = 1, 4 do
      local b = S.buckets[d]
      if b and not b.rule.quota then b.reserve = b.rule.capacity * S.headroom end
    end
  end
  if change.concurrency then S.concurrency = change.concurrency end
  for i, name in ipairs(SETTINGS) do
    if change[name] then S.changedAt[i] = now end
  end
  S.rv = S.rv + 1
end

local function procOf(S, owner)
  local proc = S.procs[owner]
  if not proc then
    proc = { till = 0, finish = 0, head = false }
    S.procs[owner] = proc
  end
  return proc
end

-- What is held for one call: its charge as an array, its id, the field it lies in, its owner, since when, and when it was
-- lost (0 when not).
local function idKey(id) return string.format('%.0f', id) end

local function packed(owner, at, charge, lost)
  return cmsgpack.pack(owner, at, lost or 0, charge[1], charge[2], charge[3], charge[4])
end

local function entryOf(field, raw)
  local ok, owner, at, lost, r, i, o, t = pcall(cmsgpack.unpack, raw)
  if not (ok and type(owner) == 'string') then return nil end
  local entry = { r, i, o, t, id = tonumber(field), field = field, owner = owner, at = at, lost = lost }
  local isWhole = isNumber(entry.id) and isNumber(at) and isNumber(lost)
  for d = 1, 4 do isWhole = isWhole and isNumber(entry[d]) end
  return isWhole and entry or nil
end

local function entryAt(key, id)
  local field = idKey(id)
  local raw = redis.call('HGET', key, field)
  local entry = raw and entryOf(field, raw)
  if raw and not entry then redis.call('HDEL', key, field) end
  return entry
end

local function entriesOf(key)
  local flat, entries = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do
    local entry = entryOf(flat[i], flat[i + 1])
    if entry then entries[#entries + 1] = entry
    -- Who only looks changes nothing.
    elseif ARGV[1] ~= '' then redis.call('HDEL', key, flat[i]) end
  end
  return entries
end

-- How many calls are held, and what output they have reserved: kept in the state, because each response asks for it.
local function reservedOutput(charge) return math.max(0, charge[3]) end

local function count(S, charge)
  S.opened, S.output = S.opened + 1, S.output + reservedOutput(charge)
end

local function recount(S)
  S.opened, S.output = 0, 0
  for _, entry in ipairs(entriesOf(OPEN)) do count(S, entry) end
end

-- Ids go by the time: a replica that has not heard the last of its master gives none of them again.
local function hold(S, owner, charge, at)
  S.lastId = math.max(S.lastId + 1, math.floor(S.now * 1000))
  redis.call('HSET', OPEN, idKey(S.lastId), packed(owner, at, charge))
  count(S, charge)
  return S.lastId
end

-- The twin of budget/gate.ts for all processes together: after the provider said no, calls go out one, two, four. Calls
-- that were sent before are not counted. After those each success doubles them. A call that stays silent for PATIENCE holds
-- back nobody any more: one more goes out. While no limit is known, the first call goes alone in the same way.
local MOST_BY_ROUND = 4
local MOST_PROBED = 1024
local PATIENCE = 60000
local function concurrencyOf(S) return S.concurrency >= 0 and S.concurrency or INF end

local function isProbing(S)
  return (not S.known and S.opened >= 1) or (S.probe and S.probe.open >= S.probe.allowed) or false
end

-- How long until there is room if nothing is heard: 0 when there is, INF when a call must end.
local function roomIn(S, now)
  if S.opened >= concurrencyOf(S) then return INF end
  return isProbing(S) and math.max(0, S.heardAt + PATIENCE - now) or 0
end

-- Whether somebody may wait for a call to end, and not only for what it gives back.
local function isTight(S) return not S.known or S.probe ~= false or S.concurrency >= 0 end

local function permits(S)
  local most = S.known and concurrencyOf(S) or 1
  if S.probe then most = math.min(most, S.opened - S.probe.open + S.probe.allowed) end
  return most
end

local function enterRoom(S, now)
  S.heardAt = now
  if S.probe then S.probe.open = S.probe.open + 1 end
end

local function leaveRoom(S, entry, succeeded, now)
  local id, probe = entry.id, S.probe
  redis.call('HDEL', OPEN, entry.field)
  S.opened = math.max(0, S.opened - 1)
  S.output = S.opened == 0 and 0 or S.output - reservedOutput(entry)
  if not probe or id <= probe.since then return end
  probe.open = math.max(0, probe.open - 1)
  if succeeded and id > probe.round then
    probe.allowed, S.heardAt = probe.allowed * 2, now
    if probe.allowed <= MOST_BY_ROUND then probe.round = S.lastId end
    if probe.allowed >= math.min(MOST_PROBED, concurrencyOf(S)) then S.probe = false end
  end
end

local function prune(S, now)
  for owner, since in pairs(S.gone) do
    if since + KEEP_LOST < now then
      S.gone[owner] = nil
      redis.call('HDEL', SEEN, owner)
    end
  end
  if redis.call('HLEN', LOST) == 0 then return end
  for _, entry in ipairs(entriesOf(LOST)) do
    if entry.lost + KEEP_LOST < now then redis.call('HDEL', LOST, entry.field) end
  end
end

-- Processes whose lease ran out: their heads leave, their permits return. What they held stays charged as estimated
-- (the provider may have counted it) unless the store was told to refund; a late settlement still finds it.
local function reap(S, now, refund)
  local lost
  for owner, proc in pairs(S.procs) do
    if proc.till < now then lost = lost or {}; lost[owner] = true end
  end
  if not lost or now < S.quiet then return end
  prune(S, now)
  for owner in pairs(lost) do S.procs[owner], S.gone[owner] = nil, now end
  for _, entry in ipairs(entriesOf(OPEN)) do
    if lost[entry.owner] then
      leaveRoom(S, entry, false, now)
      if refund then settleCharge(S, entry.id, entry, { 0, 0, 0, 0 }, entry.at, now)
      else redis.call('HSET', LOST, entry.field, packed(entry.owner, entry.at, entry, now)) end
    elseif not S.procs[entry.owner] then
      -- Its process is unknown here: it gets a lease to show up in.
      procOf(S, entry.owner).till = S.quiet
    end
  end
end

-- Whether a is served before b: by priority, then by the start tag, then who came first.
local function before(a, b)
  if a.prio ~= b.prio then return a.prio > b.prio end
  if a.tag ~= b.tag then return a.tag < b.tag end
  return a.turn < b.turn
end

-- The head that is served first, of all processes but one.
local function firstHead(S, but)
  local best, owner
  for name, proc in pairs(S.procs) do
    if name ~= but and proc.head and (not best or before(proc.head, best)) then best, owner = proc.head, name end
  end
  return best, owner
end

-- Whether a head is served right after the first one, which is of another process.
local function isNext(S, head, me, firstOwner)
  for name, proc in pairs(S.procs) do
    if name ~= me and name ~= firstOwner and proc.head and before(proc.head, head) then return false end
  end
  return true
end

-- How long a head must wait: 0 when it can go, INF for a permit, nil when a quota is used up.
local function waitOf(S, charge, now)
  local wait, binding = decide(S, charge, now, S.cooldown)
  if wait == 0 then return roomIn(S, now), 0 end
  return wait, binding
end

-- How long until everything that is served before a head, and the head, has been refilled.
local function foresee(S, head, but, now)
  local sums, longest, binding = { 0, 0, 0, 0 }, 0, 0
  for name, proc in pairs(S.procs) do
    if proc.head and (name == but or before(proc.head, head)) then
      for d = 1, 4 do sums[d] = sums[d] + math.max(0, proc.head.charge[d]) end
    end
  end
  for d = 1, 4 do
    local b = S.buckets[d]
    if b and b.rate > 0 and sums[d] > b.level then
      local wait = (sums[d] - b.level) / b.rate
      if wait > longest then longest, binding = wait, d end
    end
  end
  if S.cooldown then longest = math.max(longest, S.cooldown[1] - now) end
  return longest, binding
end

-- Tells the process of the first head when it may come, if it does not know: by a message, or, when it is the one that
-- asks, by the time given here (-1: nothing to say). A process that has moved on since then knows by the head's number.
local function notify(S, me, asked, now)
  local head, owner = firstHead(S, nil)
  local wait = head and (waitOf(S, head.charge, now) or 0)
  if not head or wait == INF then S.notified = false; return -1 end
  local at, known = now + wait, S.notified
  if owner == me and asked then
    S.notified = { owner, head.turn, at }
    return -1
  end
  if known and known[1] == owner and known[2] == head.turn and known[3] <= at + 5 then return -1 end
  S.notified = { owner, head.turn, at }
  if owner == me then return { math.ceil(wait), head.turn } end
  -- Who may not publish settles all the same; the head has a timer of its own.
  redis.pcall('PUBLISH', ARGV[3] .. string.match(owner, '^[^/]*'),
    string.format('%s %.0f %.0f', owner, math.ceil(wait), head.turn))
  return -1
end
`
