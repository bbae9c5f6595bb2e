-- What has to happen in one step, for all workers: one script, ARGV[1] says which of its functions. Every key begins
-- with one prefix, KEYS[1].
--
-- Under it: places:WORKER (hash: name -> requests in flight there), workers (sorted set: worker -> last beat),
-- gates (hash: name -> "opens trial slow_since"), tried (hash: place of a trial -> when the last one began), turns and
-- uses (hashes by account id), turn (a counter), fleet (JSON) and revision (counts its changes), window:NAME (packed
-- entries), bindings (hash) and bound (sorted set).

local function time()
  local now = redis.call('TIME')
  return tonumber(now[1]) + tonumber(now[2]) / 1000000
end

-- Workers that beat not long ago.
local function alive(prefix, patience)
  return redis.call('ZRANGEBYSCORE', prefix .. 'workers', time() - patience, '+inf')
end

local function in_flight(prefix, workers, name)
  local total = 0
  for _, worker in ipairs(workers) do
    total = total + tonumber(redis.call('HGET', prefix .. 'places:' .. worker, name) or 0)
  end
  return total
end

local function gate(prefix, name)
  local found = redis.call('HGET', prefix .. 'gates', name)
  if not found then return nil end
  local opens, trial, slow_since = string.match(found, '^(%S+) (%S+) (%S+)$')
  return {opens = tonumber(opens), trial = trial == '1', slow_since = tonumber(slow_since)}
end

-- The names under which a request of this candidate would count, how many are in flight there, and since when it starts
-- slowly; nil: it may not be used now. Who tries for ``longest`` seconds keeps nobody out.
local function admitted(prefix, workers, candidate, now, longest)
  local id, busy = candidate.id, in_flight(prefix, workers, 'a' .. candidate.id)
  if candidate.cap > 0 and busy >= candidate.cap then return nil end
  local counted, slow_since = {'a' .. id}, 0
  for _, name in ipairs({id, id .. ' ' .. candidate.model, '@' .. candidate.site}) do
    local found = gate(prefix, name)
    if found then
      if found.opens > now then return nil end
      if found.trial then
        if in_flight(prefix, workers, 't' .. name) > 0 then
          if now - tonumber(redis.call('HGET', prefix .. 'tried', 't' .. name) or 0) < longest then return nil end
        end
        table.insert(counted, 't' .. name)
      end
      if name == id then slow_since = found.slow_since end
    end
  end
  return counted, busy, slow_since
end

local function is_crowded(busy, cap, slow_since, now, slow_start, full)
  local passed = now - slow_since
  if slow_since == 0 or passed >= slow_start then return false end
  if cap == 0 then cap = full end
  local share = math.max(1, math.floor(cap * (0.1 + 0.9 * math.max(passed, 0) / slow_start)))
  return busy >= share
end

local function is_before(a, b)
  for i = 1, #a.rank do
    if a.rank[i] ~= b.rank[i] then return a.rank[i] < b.rank[i] end
  end
  return false
end

-- Candidates {id, priority, cap, model, site} in the order in which they are wanted, as far as that needs no look at what
-- is in flight and what is closed: all of that is looked up for the first ones only.
local function wanted(prefix, candidates, order)
  local ids, found = {}, {}
  for i, candidate in ipairs(candidates) do ids[i] = string.format('%d', candidate[1]) end
  local facts = {prefer = {}, turn = {}, uses = {}}
  for _, name in ipairs(order) do
    if name ~= 'prefer' then
      facts[name] = redis.call('HMGET', prefix .. (name == 'turn' and 'turns' or 'uses'), unpack(ids))
    end
  end
  for i, candidate in ipairs(candidates) do
    facts.prefer[i] = -candidate[2]
    local rank = {}
    for n, name in ipairs(order) do rank[n] = tonumber(facts[name][i] or 0) end
    rank[#rank + 1] = candidate[1]
    found[i] = {at = i, id = ids[i], cap = candidate[3], model = candidate[4], site = candidate[5], rank = rank}
  end
  table.sort(found, is_before)
  return found
end

local function best(prefix, candidates, now, longest, args)
  local workers, chosen, places = alive(prefix, tonumber(args[5])), nil, nil
  for _, candidate in ipairs(candidates) do
    local counted, busy, slow_since = admitted(prefix, workers, candidate, now, longest)
    if counted then
      local crowded = is_crowded(busy, candidate.cap, slow_since, now, tonumber(args[6]), tonumber(args[7]))
      if not (crowded and chosen) then chosen, places = candidate, counted end
      if not crowded then break end
    end
  end
  return chosen, places
end

-- candidates (JSON), the order of facts (JSON), now, worker, patience, slow start, its full share, the revision of the
-- fleet that the worker knows: one that is older tells that everything was forgotten, also what may not be picked;
-- the seconds after which a trial keeps nobody out any more, when there is nobody else
local function pick(keys, args)
  local prefix, now = keys[1], tonumber(args[3])
  if tonumber(redis.call('GET', prefix .. 'revision') or 0) < tonumber(args[8]) then return {-1} end
  local candidates = wanted(prefix, cjson.decode(args[1]), cjson.decode(args[2]))
  local chosen, places = best(prefix, candidates, now, math.huge, args)
  local longest = tonumber(args[9])
  if not chosen and longest < math.huge then chosen, places = best(prefix, candidates, now, longest, args) end
  if not chosen then return false end
  redis.call('HSET', prefix .. 'turns', chosen.id, redis.call('INCR', prefix .. 'turn'))
  redis.call('HINCRBY', prefix .. 'uses', chosen.id, 1)
  for _, name in ipairs(places) do
    redis.call('HINCRBY', prefix .. 'places:' .. args[4], name, 1)
    if string.sub(name, 1, 1) == 't' then redis.call('HSET', prefix .. 'tried', name, args[3]) end
  end
  return {chosen.at - 1, places}
end

-- name, cap, worker, patience
local function hold(keys, args)
  local prefix = keys[1]
  if in_flight(prefix, alive(prefix, tonumber(args[4])), args[1]) >= tonumber(args[2]) then return 0 end
  return redis.call('HINCRBY', prefix .. 'places:' .. args[3], args[1], 1)
end

-- name, patience
local function count(keys, args)
  return in_flight(keys[1], alive(keys[1], tonumber(args[2])), args[1])
end

-- worker, names…
local function let_go(keys, args)
  local key = keys[1] .. 'places:' .. args[1]
  for i = 2, #args do
    if redis.call('HINCRBY', key, args[i], -1) <= 0 then redis.call('HDEL', key, args[i]) end
  end
end

-- worker, patience, what it holds (JSON), whether it has been away: then, or when the others had given it up, its places
-- are counted anew. Others that no longer beat are forgotten. The revision of the fleet.
local function beat(keys, args)
  local prefix, worker = keys[1], args[1]
  if args[4] == '1' or not redis.call('ZSCORE', prefix .. 'workers', worker) then
    redis.call('DEL', prefix .. 'places:' .. worker)
    for name, held in pairs(cjson.decode(args[3])) do
      redis.call('HSET', prefix .. 'places:' .. worker, name, held)
    end
  end
  redis.call('ZADD', prefix .. 'workers', time(), worker)
  for _, gone in ipairs(redis.call('ZRANGEBYSCORE', prefix .. 'workers', '-inf', time() - tonumber(args[2]))) do
    redis.call('DEL', prefix .. 'places:' .. gone)
    redis.call('ZREM', prefix .. 'workers', gone)
  end
  return redis.call('GET', prefix .. 'revision') or '0'
end

-- worker
local function leave(keys, args)
  redis.call('ZREM', keys[1] .. 'workers', args[1])
  redis.call('DEL', keys[1] .. 'places:' .. args[1])
end

-- name, now, the age at which failures are forgotten, how many to count: {times, last}
local function strike(keys, args)
  local key = keys[1] .. 'strikes:' .. args[1]
  local last = redis.call('HGET', key, 'last')
  if last and tonumber(last) <= tonumber(args[2]) - tonumber(args[3]) then redis.call('DEL', key) end
  if args[4] ~= '0' then
    redis.call('HINCRBY', key, 'times', args[4])
    redis.call('HSET', key, 'last', args[2])
    redis.call('PEXPIRE', key, math.ceil(tonumber(args[3]) * 1000))
  end
  return redis.call('HMGET', key, 'times', 'last')
end

-- A Redis that has forgotten everything begins to count below whatever it has counted before, so that no worker takes
-- what it then finds for what it knows.
local function first_revision()
  return string.format('%.0f', 9e15 - time() * 1000000)
end

-- the revision that is to be replaced, the fleet, gates that are no more (JSON), gates by name (JSON)
local function replace(keys, args)
  local prefix = keys[1]
  local revision = redis.call('GET', prefix .. 'revision')
  if (revision or '0') ~= args[1] then return false end
  if not revision then redis.call('SET', prefix .. 'revision', first_revision()) end
  redis.call('SET', prefix .. 'fleet', args[2])
  for _, name in ipairs(cjson.decode(args[3])) do redis.call('HDEL', prefix .. 'gates', name) end
  for name, value in pairs(cjson.decode(args[4])) do redis.call('HSET', prefix .. 'gates', name, value) end
  redis.call('INCR', prefix .. 'revision')
  return redis.call('GET', prefix .. 'revision')
end

-- uses by account id (JSON): for those that are not known
local function seed(keys, args)
  local prefix, known = keys[1], cjson.decode(args[1])
  for id, used in pairs(known) do redis.call('HSETNX', prefix .. 'uses', id, used) end
  for _, name in ipairs({'uses', 'turns'}) do
    for _, id in ipairs(redis.call('HKEYS', prefix .. name)) do
      if not known[id] then redis.call('HDEL', prefix .. name, id) end
    end
  end
end

-- conversation, account, now, the age at which one is forgotten, how many are kept
local function bind(keys, args)
  local prefix, now = keys[1], tonumber(args[3])
  redis.call('HSET', prefix .. 'bindings', args[1], args[2])
  redis.call('ZADD', prefix .. 'bound', now, args[1])
  local oldest = redis.call('ZRANGEBYSCORE', prefix .. 'bound', '-inf', now - tonumber(args[4]), 'LIMIT', 0, 100)
  if #oldest == 0 and redis.call('ZCARD', prefix .. 'bound') > tonumber(args[5]) then
    oldest = redis.call('ZRANGE', prefix .. 'bound', 0, 0)
  end
  for _, name in ipairs(oldest) do
    redis.call('ZREM', prefix .. 'bound', name)
    redis.call('HDEL', prefix .. 'bindings', name)
  end
end

-- conversation, now, the age at which one is forgotten
local function bound(keys, args)
  local prefix, now = keys[1], tonumber(args[2])
  local used = redis.call('ZSCORE', prefix .. 'bound', args[1])
  if not used or tonumber(used) <= now - tonumber(args[3]) then return false end
  redis.call('ZADD', prefix .. 'bound', now, args[1])
  return redis.call('HGET', prefix .. 'bindings', args[1])
end

-- Entries {began, time, amount} of a window that still count.
local function entries(key, seconds, now)
  local kept, packed = {}, redis.call('GET', key)
  if packed then
    for _, entry in ipairs(cmsgpack.unpack(packed)) do
      if entry[2] > now - seconds then table.insert(kept, entry) end
    end
  end
  return kept
end

local function wait(kept, seconds, amount, limit, now)
  local excess = amount - limit
  for _, entry in ipairs(kept) do excess = excess + entry[3] end
  if excess <= 0 then return 0 end
  for _, entry in ipairs(kept) do
    excess = excess - entry[3]
    if excess <= 0 then return entry[2] + seconds - now end
  end
  return seconds
end

local function add(kept, seconds, amount, now, grain)
  local last = kept[#kept]
  if last and now - last[1] < seconds / grain then
    last[2], last[3] = math.max(last[2], now), last[3] + amount
  else
    table.insert(kept, {now, now, amount})
  end
end

-- charges {name, window, amount, limit} (JSON), now, grain. {index of the one that does not fit, wait}, or false
local function spend(keys, args)
  local now, windows = tonumber(args[2]), {}
  local charges = cjson.decode(args[1])
  for i, charge in ipairs(charges) do
    windows[i] = entries(keys[1] .. 'window:' .. charge[1], charge[2], now)
    local seconds = wait(windows[i], charge[2], charge[3], charge[4], now)
    if seconds > 0 then return {i - 1, string.format('%.6f', seconds)} end
  end
  for i, charge in ipairs(charges) do
    add(windows[i], charge[2], charge[3], now, tonumber(args[3]))
    redis.call('SET', keys[1] .. 'window:' .. charge[1], cmsgpack.pack(windows[i]), 'PX', math.ceil(charge[2] * 1000) + 1000)
  end
  return false
end

-- name, when, difference
local function settle(keys, args)
  local key, when = keys[1] .. 'window:' .. args[1], tonumber(args[2])
  local packed = redis.call('GET', key)
  if not packed then return end
  local kept = cmsgpack.unpack(packed)
  for _, entry in ipairs(kept) do
    if entry[1] <= when and when <= entry[2] then
      entry[3] = math.max(entry[3] + tonumber(args[3]), 0)
      redis.call('SET', key, cmsgpack.pack(kept), 'KEEPTTL')
      return
    end
  end
end

-- name, window, now
local function used(keys, args)
  local total = 0
  for _, entry in ipairs(entries(keys[1] .. 'window:' .. args[1], tonumber(args[2]), tonumber(args[3]))) do
    total = total + entry[3]
  end
  return string.format('%.6f', total)
end

local known = {
  pick = pick, hold = hold, count = count, let_go = let_go, beat = beat, leave = leave,
  strike = strike, replace = replace, seed = seed, bind = bind, bound = bound, spend = spend, settle = settle, used = used,
}
return known[ARGV[1]]({KEYS[1]}, {unpack(ARGV, 2)})
