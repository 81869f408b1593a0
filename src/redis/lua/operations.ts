/**
 * The operations on a pool. Each is given the state, who asks, its own arguments, and the pool's time.
 */
export const operations = `
local ops = {}

-- The head that a process asks for: its place among the heads that wait, and what it costs now.
local function headOf(S, me, ask)
  local proc = procOf(S, me)
  local head = proc.head
  if not head then
    -- A process that was served before goes on where its last call ended, so that all get the same; a new one starts
    -- where the head that is waited for stands, never before it.
    local first = proc.finish == 0 and firstHead(S, me)
    head = { tag = math.max(proc.finish, first and first.tag or S.virtual), turn = S.turn, ready = false }
    S.turn = S.turn + 1
  end
  head.prio, head.charge = ask[5], ask
  return head
end

-- How long a head must wait for those that are served before it, and for which dimension; nil when none is left. Those
-- whose processes do not come although it is their turn are passed over.
local function waitForOthers(S, me, head, now)
  while true do
    local first, owner = firstHead(S, me)
    if not first or before(head, first) then return nil end
    local wait = waitOf(S, first.charge, now) or 0
    if wait > 0 then first.ready = false elseif not first.ready then first.ready = now end
    if wait > 0 or now - first.ready < GRACE then
      local millis, d = foresee(S, head, me, now)
      -- Who is next looks whether the first one came; all others are told.
      if first.ready and isNext(S, head, me, owner) then millis = math.max(millis, first.ready + GRACE - now)
      else millis = 1.5 * millis + 3 * GRACE end
      return math.min(NET, millis), d
    end
    S.procs[owner].head = false
  end
end

local function grant(S, me, head, ask, now)
  local proc = procOf(S, me)
  enterRoom(S, now)
  S.virtual = math.max(S.virtual, head.tag)
  proc.finish = head.tag + math.max(1e-9, dominantShare(S, ask))
  takeCharge(S, ask, now)
  hold(S, me, ask, now)
end

-- ['take', [r, i, o, t, priority], ...] -> [last id, how many, what is left after the last,
-- 0 | ['wait', ms, d, turn] | ['exhausted', d, asked, left]]: the ids of what is granted follow each other.
function ops.take(S, me, op, now)
  local proc = procOf(S, me)
  local function answer(granted, blocked) return { S.lastId, granted, leftOf(S), blocked } end
  if #op == 1 then proc.head = false end
  for i = 2, #op do
    local ask = op[i]
    local head = headOf(S, me, ask)
    proc.head = head
    local wait, d = waitForOthers(S, me, head, now)
    if wait then return answer(i - 2, { 'wait', math.ceil(wait), d, head.turn }) end
    wait, d = waitOf(S, ask, now)
    if wait and wait > 0 then return answer(i - 2, { 'wait', wait == INF and NET or math.ceil(wait), d, head.turn }) end
    proc.head = false
    if not wait then return answer(i - 2, { 'exhausted', d, ask[d], math.max(0, S.buckets[d].level) }) end
    grant(S, me, head, ask, now)
  end
  return answer(#op - 1, 0)
end

-- ['settle', id, [used], succeeded]: unknown ids were settled before, or by the lease.
function ops.settle(S, me, op, now)
  local entry = entryAt(OPEN, op[2])
  if entry then leaveRoom(S, entry, op[4], now)
  else
    entry = entryAt(LOST, op[2])
    if not entry then return 0 end
    redis.call('HDEL', LOST, entry.field)
  end
  settleCharge(S, op[2], entry, op[3], entry.at, now)
  return 1
end

-- ['observe', [[limit, remaining, roundedTo] | false, ...], date | false, [id, left] | false]
function ops.observe(S, me, op, now)
  local answered = op[4]
  local entry = answered and entryAt(OPEN, answered[1])
  local output, others = entry and reservedOutput(entry) or 0, S.opened - (entry and 1 or 0)
  observe(S, op[2], op[3], {
    id = answered and answered[1] or S.lastId, left = answered and answered[2] or nil,
    output = output, uncounted = S.output - output,
    idle = answered and answered[1] == S.lastId and others <= 0 or false
  }, now)
  return 0
end

-- ['pause', reason, millis, charge | false, takenAt | false]
function ops.pause(S, me, op, now)
  cool(S, op[2], op[3], op[4], op[5], now)
  -- The provider's load is every process's own affair: it halves what that one has in flight.
  if op[2] ~= 'overload' then
    S.probe = { since = S.lastId, round = S.lastId, allowed = 1, open = 0 }
    S.heardAt = now
  end
  return 0
end

-- ['resize', { limits?, concurrency? }]
function ops.resize(S, me, op, now)
  configure(S, op[2], now)
  return 0
end

-- ['unlearn', millis]: goes back to what is configured, unless limits were told less than so long ago.
function ops.unlearn(S, me, op, now)
  unlearn(S, op[2], now)
  return 0
end

-- Of what a process remembers, that counts which was changed later than what is known here: the state was lost.
local function recall(S, said, now)
  local change = {}
  for i, name in ipairs(SETTINGS) do
    if said.changedAt[i] > S.changedAt[i] then change[name] = said[name] end
  end
  if next(change) == nil then return end
  configure(S, change, now)
  for i, name in ipairs(SETTINGS) do
    if change[name] then S.given[i], S.changedAt[i] = said.given[i], said.changedAt[i] end
  end
end

-- What a process starts with counts where it is new. What others were started with, too, is no news, and undoes no change.
local function hearGiven(S, said, now)
  local change = {}
  for i, name in ipairs(SETTINGS) do
    if hasWord(said.given, i) and said.given[i] ~= S.given[i] then S.given[i], change[name] = said.given[i], said[name] end
  end
  if next(change) ~= nil then configure(S, change, now) end
end

-- ['open', { limits, headroom, concurrency, given: [limits as text, headroom, concurrency], changedAt: [...] | false },
-- [from, millis] | false]: as the process was told, or as it is started with.
function ops.open(S, me, op, now)
  if op[2].changedAt then recall(S, op[2], now) else hearGiven(S, op[2], now) end
  return 0
end

-- ['join', [[id, age, [charge]], ...], [[level, age] | false, ...]]: what a process holds and remembers of a state that
-- was lost, or that an older copy has taken the place of. Ids count up across states, so nothing is held twice; what is
-- known here and not held any more goes, as used.
function ops.join(S, me, op, now)
  local holds = {}
  for _, held in ipairs(op[2]) do holds[idKey(held[1])] = true end
  for _, entry in ipairs(entriesOf(OPEN)) do
    if entry.owner == me and not holds[entry.field] then
      leaveRoom(S, entry, false, now)
    end
  end
  for _, held in ipairs(op[2]) do
    redis.call('HDEL', LOST, idKey(held[1]))
    if redis.call('HSETNX', OPEN, idKey(held[1]), packed(me, now - held[2], held[3])) == 1 then count(S, held[3]) end
    S.lastId = math.max(S.lastId, held[1])
  end
  for d = 1, 4 do
    local b, known = S.buckets[d], op[3][d]
    if b and known then
      local level = known[1] + b.rate * known[2]
      if b.rule.quota and S.bare then b.level = math.min(b.rule.capacity, level)
      else b.level = math.min(b.level, level) end
    end
  end
  if next(op[3]) ~= nil then S.bare = false end
  return 0
end

-- ['back', n, awayMillis, [[level, spent, [[age, amount], ...]] | false, ...], [[age, [charge]], ...]] -> ids
-- A process comes back from its local share. If nobody was here for most of that time, the level is what it was before and
-- what the shares of those that are back add up to, and the pace their part; else what it spent is taken now, as debt if
-- need be. (A debt of before is in the shares.)
function ops.back(S, me, op, now)
  local parts = math.max(1, op[2])
  local outage, gap = S.outage, S.gap
  if outage and outage.till > now then outage.back = outage.back + 1
  elseif gap and gap[2] - math.max(gap[1], now - op[3]) > op[3] / 2 then
    outage = { back = 1, millis = gap[2] - gap[1], till = now + STEP, scale = S.pace.scale }
    S.outage = outage
  else outage = nil end
  for d = 1, 4 do
    local b, share = S.buckets[d], op[4][d]
    if b and share then
      if b.rule.quota or not outage then b.level = b.level - (b.rule.quota and share[2] or math.min(share[2], b.rule.capacity))
      elseif outage.back == 1 then
        b.level = math.min(b.level, math.max(0, b.level - b.rate * outage.millis) + share[1])
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
    ids[i] = hold(S, me, held[2], now - held[1])
  end
  return ids
end

-- ['beat']: still there.
function ops.beat(S, me, op, now)
  prune(S, now)
  return 0
end

-- ['leave']: gone for good. What it has not settled returns when its lease is over.
function ops.leave(S, me)
  S.procs[me].head = false
  for _, entry in ipairs(entriesOf(OPEN)) do
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
  for _, entry in ipairs(entriesOf(OPEN)) do
    local sum = held[entry.owner] or { 0, { 0, 0, 0, 0 } }
    held[entry.owner] = sum
    sum[1] = sum[1] + 1
    for d = 1, 4 do sum[2][d] = sum[2][d] + math.max(0, entry[d]) end
  end
  for owner, proc in pairs(S.procs) do
    local sum = held[owner] or { 0, { 0, 0, 0, 0 } }
    procs[#procs + 1] = { owner, proc.till - now, sum[1], sum[2], proc.head and proc.head.charge or false }
  end
  return { procs, S.opened, permits(S) >= INF and -1 or permits(S), S.why, redis.call('HLEN', LOST) }
end
`
