-- propose: take credits from a customer's cached grants tentatively, for several requests in turn. A hint, never an answer: the
-- decision is made in Postgres, and its after-image replaces what is written here.
--   KEYS[1] b:{customer}  see load.lua; i<k> = unit GS until GS from GS member GS version GS scope GS wallet scope GS,
--           a<k> = available; instants in microseconds, GS = character 29
--   ARGV[1] now in microseconds, or 0 for this server's clock   ARGV[2] longest time to live that is ours, ms
--   ARGV[3] time to live, ms, of what is about to be replaced: when the after-image does not come, nobody knows what has become of it
--   ARGV[4] 1 if something else than the requests below is about to change the customer
--   ARGV[5..] per request: credits wanted in steps, unit, member, 1 if the price is the same under every rate version,
--           number of dimensions, then name, value, name, value, ...
--   Replies {epoch, version, per request "O<k>:<taken>,..." taken in that order | "D" not enough | "M" cannot tell}, or {} when
--   the customer is not cached.
-- Most customers have few grants: the first ones come with the head, in one read.
local cells = redis.call('HMGET', KEYS[1], 'i1', 'a1', 'i2', 'a2', 'e', 'v', 'n', 'm')
local epoch, version, n, more = cells[5], cells[6], tonumber(cells[7] or ''), cells[8]
if not (epoch and version and n) or n ~= math.floor(n) or n < 0 or n > 500 then return {} end
local ttl = redis.call('PTTL', KEYS[1])
if ttl < 0 or ttl > tonumber(ARGV[2]) then redis.call('DEL', KEYS[1]); return {} end -- no entry of ours lives longer
local now = tonumber(ARGV[1])
if now == 0 then
  local t = redis.call('TIME')
  now = tonumber(t[1]) * 1000000 + tonumber(t[2])
end

if n > 2 then
  local names = {}
  for k = 1, n do names[2 * k - 1] = 'i' .. k; names[2 * k] = 'a' .. k end
  cells = redis.call('HMGET', KEYS[1], unpack(names))
end
local grants, avail, dirty = {}, {}, {}
local pattern = '^([^\29]*)\29([^\29]*)\29([^\29]*)\29([^\29]*)\29([^\29]*)\29([^\29]*)\29([^\29]*)\29'

local function grant(k)
  local g = grants[k]
  if g then return g end
  local info, a = cells[2 * k - 1], tonumber(cells[2 * k] or '')
  if not info or not a or a < 0 or a ~= math.floor(a) then return nil end
  local unit, till, from, member, version, scope, wscope = string.match(info, pattern)
  if not unit then return nil end
  g = { unit = unit, till = tonumber(till), from = tonumber(from), member = member, version = version, scope = scope .. wscope }
  if not g.till or not g.from then return nil end
  grants[k], avail[k] = g, a
  return g
end

-- A scope is RS name US value US value US ... for each dimension it names (RS 30, US 31).
local function matches(scope, dims)
  for name, values in string.gmatch(scope, '\30([^\30\31]*)(\31[^\30]*)') do
    local have = dims[name]
    if not have or not string.find(values, '\31' .. have .. '\31', 1, true) then return false end
  end
  return true
end

local reply, i = { epoch, version }, 5
while i <= #ARGV do
  local need, unit, member, fixed, count = tonumber(ARGV[i]), ARGV[i + 1], ARGV[i + 2], ARGV[i + 3] == '1', tonumber(ARGV[i + 4])
  local dims = {}
  for d = 1, count do dims[ARGV[i + 3 + 2 * d]] = ARGV[i + 4 + 2 * d] end
  i = i + 5 + 2 * count
  local takes, unknown = {}, false
  for k = 1, n do
    if need == 0 then break end
    local g = grant(k)
    if not g then unknown = true; break end
    local a = avail[k]
    if a > 0 and g.unit == unit and now >= g.from and (g.till < 0 or now < g.till) and (g.member == '' or g.member == member) and
       matches(g.scope, dims) then
      if g.version ~= '0' and not fixed then unknown = true; break end
      local take = math.min(a, need) -- subtracting as it goes: no sum ever passes 2^53
      need = need - take
      takes[#takes + 1] = k
      takes[#takes + 1] = take
    end
  end
  if unknown or (need > 0 and more == '1') then
    reply[#reply + 1] = 'M'
  elseif need > 0 then
    reply[#reply + 1] = 'D'
  else
    local plan = {}
    for t = 1, #takes, 2 do
      local k = takes[t]
      avail[k] = avail[k] - takes[t + 1]
      dirty[k] = true
      plan[#plan + 1] = k .. ':' .. string.format('%.0f', takes[t + 1])
    end
    reply[#reply + 1] = 'O' .. table.concat(plan, ',')
  end
end

local set = {}
for k in pairs(dirty) do set[#set + 1] = 'a' .. k; set[#set + 1] = string.format('%.0f', avail[k]) end
if #set > 0 then redis.call('HSET', KEYS[1], unpack(set)) end
if (#set > 0 or ARGV[4] == '1') and ttl > tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return reply
