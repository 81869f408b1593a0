/**
 * The Lua twin of `src/internal/bucket.ts` and of `Limits.resolve`: the same arithmetic in the same order, so that both
 * come to the same doubles. Buckets are changed in place; `cells` is flat: index, amount, index, amount, ...
 */
export const bucket = `
-- Limits.resolve: a limit as people say it becomes the rule that a bucket runs by. d = 1 is requests.
local function resolve(d, limit)
  local burst = limit.burst
  if limit.total then
    return { capacity = limit.total, rate = 0, most = limit.total, quota = true }
  end
  local millis = limit.perSecond and 1000 or 60000
  local max = limit.perSecond or limit.perMinute
  local windowed
  if limit.window == nil then windowed = limit.perMinute ~= nil else windowed = limit.window ~= 'bucket' end
  if windowed then
    local capacity = burst or (d == 1 and (max * 5000) / 60000 or max * 0.05)
    return { capacity = capacity, rate = (max - capacity) / millis, most = max, max = max, millis = millis, quota = false }
  end
  local rate = max / millis
  local capacity = burst or ((d == 1 and limit.perMinute) and rate * 5000 or max)
  return { capacity = capacity, rate = rate, most = math.max(capacity, rate * 60000), quota = false }
end

local CELLS = 60
local TOLERANCE = 1e-9
local INF = math.huge

local function makeBucket(rule, now, scale, headroom)
  return {
    rule = rule, rate = rule.rate * scale, level = rule.capacity, at = now,
    reserve = rule.quota and 0 or rule.capacity * headroom, cells = {}
  }
end

-- A cell counts until its youngest amount has left the window.
local function leavesAt(index, rule)
  return (index + 1) * (rule.millis / CELLS) + rule.millis
end

-- The bucket as of now. A clock that stands or steps back refills nothing.
local function refill(b, now)
  if now <= b.at then return end
  local rule = b.rule
  if b.level < rule.capacity then b.level = math.min(rule.capacity, b.level + b.rate * (now - b.at)) end
  b.at = now
  if rule.max and #b.cells > 0 then
    local gone = 0
    while gone < #b.cells and leavesAt(b.cells[gone + 1], rule) <= now do gone = gone + 2 end
    if gone > 0 then
      local cells = {}
      for i = gone + 1, #b.cells do cells[#cells + 1] = b.cells[i] end
      b.cells = cells
    end
  end
end

local function addToWindow(b, at, amount)
  if not b.rule.max or amount == 0 then return end
  local cells = b.cells
  local index = math.floor(at / (b.rule.millis / CELLS))
  local p = #cells - 1
  while p >= 1 and cells[p] > index do p = p - 2 end
  if p >= 1 and cells[p] == index then
    cells[p + 1] = math.max(0, cells[p + 1] + amount)
  elseif amount > 0 then
    table.insert(cells, p + 2, index)
    table.insert(cells, p + 3, amount)
  end
end

local function windowWait(b, amount, now)
  local rule = b.rule
  if not rule.max then return 0 end
  local over = 0
  for i = 2, #b.cells, 2 do over = over + b.cells[i] end
  over = over + amount - rule.max * (1 + TOLERANCE)
  if over <= 0 then return 0 end
  for i = 1, #b.cells, 2 do
    over = over - b.cells[i + 1]
    if over <= 0 then return math.max(0, leavesAt(b.cells[i], rule) - now) end
  end
  return rule.millis
end

-- What is kept back: the headroom, and never less than what is refilled while grants are on their way to their processes
-- (late: how long the slowest reply took of late). A call that arrives late leaves the provider's bucket full for so long,
-- and what that would have refilled meanwhile is lost there, but not here. Who wants no headroom gets none.
local MOST_RESERVE = 0.25
local function keptBack(b, late)
  if b.reserve <= 0 then return 0 end
  return math.max(b.reserve, math.min(b.rule.capacity * MOST_RESERVE, b.rate * late))
end

-- Milliseconds until the amount can be taken; 0 when it can be now.
local function waitFor(b, amount, now, late)
  if amount == 0 then return 0 end
  local need
  if b.rule.quota then need = amount
  else need = math.min(amount + keptBack(b, late), b.rule.capacity) end
  local refilling, slack = 0, b.rule.capacity * TOLERANCE
  if b.level < need - slack then refilling = (need - slack / 2 - b.level) / b.rate end
  return math.max(refilling, windowWait(b, amount, now))
end

local function takeFrom(b, amount, now)
  if amount == 0 then return end
  b.level = b.level - amount
  addToWindow(b, now, amount)
end

-- Gives back; never lifts the level above the capacity.
local function giveTo(b, amount, takenAt)
  if amount == 0 then return end
  b.level = math.max(b.level, math.min(b.rule.capacity, b.level + amount))
  addToWindow(b, takenAt, -amount)
end

-- Changes the rule or the pace from now on; the time before was refilled at the old rate.
local function withRule(b, rule, scale)
  local old = b.rule
  b.rate = rule.rate * scale
  b.level = math.min(rule.capacity, b.level + (rule.quota and rule.capacity - old.capacity or 0))
  b.reserve = old.capacity == 0 and 0 or (b.reserve / old.capacity) * rule.capacity
  if not rule.max or old.millis ~= rule.millis then b.cells = {} end
  b.rule = rule
end
`
