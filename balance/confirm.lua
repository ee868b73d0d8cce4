-- confirm: bring a cached customer to a newer version when only amounts have changed: load.lua for a fraction of the price.
--   KEYS[1] b:{customer}  see load.lua
--   ARGV[1] epoch   ARGV[2] version   ARGV[3] time to live, ms   ARGV[4] s, the shape: which grants, in which order
--   ARGV[5] j, the balances as they are shown   ARGV[6..] a1, a2, ... all amounts
--   Replies 1 when what is stored is now this or newer, 0 when it has another shape or epoch, or is not there: then it takes a load.
local have = redis.call('HMGET', KEYS[1], 'e', 'v', 's')
local v = have[2]
if have[1] ~= ARGV[1] or have[3] ~= ARGV[4] or not v then return 0 end
if #ARGV[2] < #v or (#ARGV[2] == #v and ARGV[2] < v) then return 1 end -- versions are compared as decimal text
local now = redis.call('TIME')
local ends = string.format('%.0f', now[1] * 1000 + math.floor(now[2] / 1000) + ARGV[3])
local set = { 'v', ARGV[2], 't', ends, 'j', ARGV[5] }
for k = 6, #ARGV do
  set[#set + 1] = 'a' .. (k - 5)
  set[#set + 1] = ARGV[k]
end
redis.call('HSET', KEYS[1], unpack(set))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
