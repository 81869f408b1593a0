/**
 * The Lua twin of `src/internal/ledger.ts` with `pace.ts` and `observe.ts`: the step of a pool's buckets, every dimension together. `S` is the pool's
 * state; a charge is an array of four numbers in the order of `Limits.dimensions`, -1 where it has none.
 */
export const ledger = `
local DIMENSIONS = { 'requests', 'inputTokens', 'outputTokens', 'tokens' }
local STEP, STEP_CALLS = 10000, 16
local UNEXPLAINED, RECOVERY = 0.7, 0.05
local RAMP, RAMP_RECOVERY = 0.9, 1 / 60
local SHARED, SHARED_RECOVERY = 0.8, 0.02
local SLOWEST, LEAST_DRIFT = 0.05, 1e-9
-- A limit that is higher is none: 'Limits.resolve' refuses it.
local MOST = 9007199254740991

local function makeLedger(S, configured, headroom, ramp, now)
  S.configured = configured
  S.headroom = headroom
  S.pace = { scale = 1, growth = 0, at = now, drift = 0, calls = 0, ramped = false }
  if ramp then
    S.pace = { scale = ramp[1], growth = ((1 - ramp[1]) * STEP) / ramp[2], at = now, drift = 0, calls = 0, ramped = true }
  end
  S.buckets, S.lowered, S.known = {}, { -1, -1, -1, -1 }, false
  S.cooldown, S.date, S.toldAt = false, false, now
  S.corrected, S.doubt = { false, false, false, false }, { taken = 0, now = 0 }
  for d = 1, 4 do
    local limit = configured[DIMENSIONS[d]]
    S.buckets[d] = limit and makeBucket(resolve(d, limit), now, S.pace.scale, headroom) or false
    if limit then S.known = true end
  end
end

local function withPace(S, scale, growth, at, calls, ramped)
  S.pace = { scale = scale, growth = growth, at = at, drift = 0, calls = calls, ramped = ramped }
  for d = 1, 4 do
    local b = S.buckets[d]
    if b then withRule(b, b.rule, scale) end
  end
end

local function isChanging(pace) return pace.scale < 1 or pace.drift > 0 end

local function refillAll(S, now)
  for d = 1, 4 do
    if S.buckets[d] then refill(S.buckets[d], now) end
  end
end

local function nextPace(S, at)
  local pace, scale = S.pace, nil
  if pace.drift > 0 then scale = math.max(SLOWEST, pace.scale - math.min(pace.drift, pace.scale / 2))
  else scale = math.min(1, pace.scale + pace.growth) end
  withPace(S, scale, pace.drift > 0 and SHARED_RECOVERY or pace.growth, at, 0, pace.ramped and scale < 1)
end

-- Levels refilled, the pace grown back: each step of the pace refills at its own rate.
local function advance(S, now)
  while isChanging(S.pace) and S.pace.at + STEP <= now do
    local at = S.pace.at + STEP
    refillAll(S, at)
    nextPace(S, at)
  end
  refillAll(S, now)
end

-- How long the charge must wait, and for which dimension; 0 when it is admitted now; nil and the dimension when a quota
-- has too little left.
local function decide(S, charge, now, cooldown)
  local millis, binding = 0, 0
  for d = 1, 4 do
    local b, asked = S.buckets[d], charge[d]
    if b and asked >= 0 then
      local wait = waitFor(b, asked, now, S.late)
      if b.rule.quota and wait > 0 then return nil, d end
      if wait > millis then millis, binding = wait, d end
    end
  end
  if cooldown then
    local left = cooldown[1] - now
    if left >= millis and left > 0 then return left, 0 end
  end
  if millis == 0 then return 0, 0 end
  local nextStep = isChanging(S.pace) and S.pace.at + STEP - now or INF
  return math.ceil(math.min(millis, nextStep)), binding
end

local function takeCharge(S, charge, now)
  for d = 1, 4 do
    local b = S.buckets[d]
    if b and charge[d] > 0 then takeFrom(b, charge[d], now) end
  end
  local pace = S.pace
  if pace.scale >= 1 or pace.ramped then return end
  pace.calls = pace.calls + 1
  if pace.calls >= STEP_CALLS and pace.drift == 0 then nextPace(S, now) end
end

-- Replaces what was held by what was used: more becomes debt, less is given back; where the provider had already counted
-- the call when it made us move the level, only to the window.
local function settleCharge(S, id, charge, used, takenAt, now)
  for d = 1, 4 do
    local b, estimate = S.buckets[d], charge[d]
    if b and estimate >= 0 then
      local more = (used[d] >= 0 and used[d] or estimate) - estimate
      if more > 0 then takeFrom(b, more, now)
      elseif b.rule.quota or id > S.lowered[d] then giveTo(b, -more, takenAt)
      else addToWindow(b, takenAt, more) end
    end
  end
end

local function capped(configured, perMinute)
  local limit = configured.perMinute or configured.perSecond * 60
  if perMinute >= limit then return configured end
  local part = perMinute / limit
  local result = { window = configured.window }
  if configured.perMinute then result.perMinute = perMinute else result.perSecond = configured.perSecond * part end
  if configured.burst then result.burst = configured.burst * part end
  return result
end

-- A limit that nobody configured: the most that was ever left of a bucket is its burst.
local LEAST_BURST = 0.05
local function told(d, perMinute, remaining, window, b)
  if window ~= 'bucket' or d == 1 then return { perMinute = perMinute, window = window or nil } end
  local most = math.max(perMinute * LEAST_BURST, b and b.rule.capacity or 0, remaining and remaining > 0 and remaining or 0)
  return { perMinute = perMinute, window = window, burst = math.min(perMinute, most) }
end

local function limitOf(said)
  local limit = said and said[1]
  return limit and limit > 0 and limit <= MOST and limit
end

-- A limit header teaches rate and capacity, never above what was configured.
local function learnLimit(S, d, said, now)
  local b = S.buckets[d]
  local limit = limitOf(said)
  if not limit then return b end
  local configured = S.configured[DIMENSIONS[d]]
  if configured and configured.total then return b end
  local rule = resolve(d, configured and capped(configured, limit) or told(d, limit, said[2], said[4], b))
  if not b then
    b = makeBucket(rule, now, S.pace.scale, S.headroom)
    S.rv = S.rv + 1
  elseif b.rule.capacity ~= rule.capacity or b.rule.rate ~= rule.rate or b.rule.max ~= rule.max then
    withRule(b, rule, S.pace.scale)
    S.rv = S.rv + 1
  end
  return b
end

-- What \`remaining\` says: internal/reading.ts. Gives least, lowered (or nil), and more; the doubt is changed in place.
local MEMORY, CLEARLY = 0.9, 0.5
local function distance(over, width)
  return over > 0 and over or math.max(0, -width - over)
end
local function average(before, value)
  return MEMORY * before + (1 - MEMORY) * math.min(1, value)
end
local function read(remaining, roundedTo, level, capacity, left, uncounted, doubt)
  if not remaining or not (remaining >= 0 and remaining < INF) then return nil end
  roundedTo = roundedTo or 1
  local above = roundedTo > 1 and roundedTo / 2 or 1
  local below = roundedTo > 1 and roundedTo / 2 or 0
  local least = math.max(0, remaining - below) - uncounted
  local most = remaining + above - uncounted
  local width = most - least
  local whenNow = level - most
  local whenTaken = left and left - most or whenNow
  if left and most < capacity then
    doubt.taken = average(doubt.taken, distance(whenTaken, width) / capacity)
    doubt.now = average(doubt.now, distance(whenNow, width) / capacity)
  end
  local over
  if doubt.now < CLEARLY * doubt.taken then over = whenNow
  elseif doubt.taken < CLEARLY * doubt.now then over = whenTaken
  else over = math.min(whenNow, whenTaken) end
  return least, over > 0 and level - over - width or nil, math.max(0, math.min(-whenNow, -whenTaken) - width)
end

-- Moves the view toward the provider's. said[d] = { limit, remaining, roundedTo, window } or false;
-- answered = { id, left, output, uncounted, idle }.
local function observe(S, said, date, answered, now)
  for d = 1, 4 do
    if limitOf(said[d]) then S.toldAt = now end
  end
  if date and S.date and date < S.date and date > S.date - 60000 then return end
  if date then S.date = date end
  local drift = 0
  for d = 1, 4 do
    local s = said[d]
    local b = learnLimit(S, d, s, now)
    if b then
      S.buckets[d] = b
      S.known = true
      if s and not b.rule.quota then
        local capacity, isOutput = b.rule.capacity, d == 3
        local left = not isOutput and answered.left and answered.left[d] or nil
        local least, lowered, more = read(s[2], s[3], b.level, capacity,
          left and math.min(capacity, left + (S.corrected[d] or 0)), isOutput and answered.uncounted or 0, S.doubt)
        if least then
          local own = isOutput and answered.output or 0
          local level = b.level
          local reserve = math.max(b.reserve / 2, capacity * S.headroom * (1 / 16))
          if lowered then
            level = lowered - own
            reserve = math.min(capacity * MOST_RESERVE, math.max(b.reserve, capacity * S.headroom) * 2)
            local theirs = b.level - lowered - (isOutput and answered.uncounted or 0) - own
            if S.corrected[d] and theirs > 0 then drift = math.max(drift, theirs / (b.rule.rate * STEP)) end
            if not isOutput then S.lowered[d] = math.max(answered.id, S.lowered[d]) end
          elseif answered.idle and S.pace.scale >= 1 then
            level = math.min(capacity, math.max(level, least - own))
            -- What the provider says is as the answered call was used: giving back its estimate would count that twice.
            if not isOutput and level > b.level then S.lowered[d] = math.max(answered.id, S.lowered[d]) end
          elseif left and more > 0 and S.pace.scale >= 1 then
            local returned = math.min(more, -(S.corrected[d] or 0))
            if returned > 0 then
              level = b.level + returned
              if drift <= 0 then drift = math.min(drift, -returned / (b.rule.rate * STEP)) end
            end
          end
          S.corrected[d] = (S.corrected[d] or 0) + level - b.level
          b.level = math.min(level, capacity)
          b.reserve = reserve
        end
      end
    end
  end
  if drift ~= 0 then
    local pace = S.pace
    if not isChanging(pace) then pace.at = now end
    pace.drift = pace.drift + drift
    if pace.drift < LEAST_DRIFT then pace.drift = 0 end
  end
end

-- What is left right after a call was taken, in the terms of before any correction; false where nothing is limited.
local function leftOf(S)
  local left = { false, false, false, false }
  for d = 1, 4 do
    local b = S.buckets[d]
    if b then left[d] = b.level - (S.corrected[d] or 0) end
  end
  return left
end

local function slower(S, factor, growth, now)
  local pace, growing, ramped = S.pace, S.pace.scale < 1, growth == RAMP_RECOVERY
  withPace(S, math.max(SLOWEST, pace.scale * factor), growing and math.min(growth, pace.growth) or growth,
    now, growing and pace.calls or 0, ramped or (growing and pace.ramped))
end

-- Pauses the pool: the longest pause wins. A 429 that the local view cannot explain slows the rates, once for the calls
-- that were out already.
local function cool(S, reason, millis, charge, takenAt, now)
  local last = S.cooldown
  local cooling, judgedAt = last and last[1] > now, last and last[3] or false
  local isOld = takenAt and judgedAt and takenAt <= judgedAt
  local isJudged = not (cooling or isOld or reason == 'overload')
  local till = now + millis
  if not (cooling and last[1] >= till) then S.cooldown = { till, reason, isJudged and now or judgedAt } end
  if not isJudged then return end
  if reason == 'ramp' then return slower(S, RAMP, RAMP_RECOVERY, now) end
  if not charge then return end
  if decide(S, charge, now, false) ~= 0 then
    if isChanging(S.pace) then slower(S, SHARED, SHARED_RECOVERY, now) end
    return
  end
  for d = 1, 4 do
    local b, asked = S.buckets[d], math.max(0, charge[d])
    if b and not b.rule.quota and asked > 0 then
      local fits = math.min(asked + keptBack(b, S.late), b.rule.capacity)
      local level = math.min(b.level, fits - b.rate * UNEXPLAINED * millis)
      S.corrected[d] = (S.corrected[d] or 0) + level - b.level
      b.level = math.min(level, b.rule.capacity)
    end
  end
  slower(S, UNEXPLAINED, RECOVERY, now)
end

-- Replaces the limit of a dimension; the level keeps its debt and is cut to the new capacity. One of another kind begins
-- anew.
local function setLimit(S, d, limit, now)
  local b, rule = S.buckets[d], limit and resolve(d, limit)
  if not rule then S.buckets[d] = false
  elseif not b or b.rule.quota ~= rule.quota then S.buckets[d] = makeBucket(rule, now, S.pace.scale, S.headroom)
  else withRule(b, rule, S.pace.scale) end
end

local function limitsTold(S, now)
  S.toldAt, S.known = now, false
  for d = 1, 4 do S.known = S.known or S.buckets[d] ~= false end
end

-- Replaces the configured limits. What responses taught of dimensions that nobody configured stays.
local function resize(S, limits, now)
  for d, name in ipairs(DIMENSIONS) do
    if limits[name] or S.configured[name] then setLimit(S, d, limits[name], now) end
  end
  S.configured = limits
  limitsTold(S, now)
end

-- Goes back to the configured limits, unless limits were told less than so long ago.
local function unlearn(S, untold, now)
  if now - S.toldAt < untold then return end
  for d, name in ipairs(DIMENSIONS) do setLimit(S, d, S.configured[name], now) end
  limitsTold(S, now)
  S.rv = S.rv + 1
end

-- A process says how late it heard the last reply: the latest counts, and half as much with each step that passes.
local function hearLate(S, late, now)
  S.late = math.max(late, S.late * 0.5 ^ ((now - S.lateAt) / STEP))
  S.lateAt = now
end

-- The largest part of any limit that a charge takes: what serving it costs.
local function dominantShare(S, charge)
  local share = 0
  for d = 1, 4 do
    local b = S.buckets[d]
    if b and charge[d] > 0 then share = math.max(share, charge[d] / b.rule.most) end
  end
  return share
end
`
