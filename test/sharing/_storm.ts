import * as World from "./world.ts"
import * as Storm from "./storm.ts"
const redis = await World.redis()
const [from = 1, to = 50, losses = "0"] = process.argv.slice(2)
let bad = 0
let worst = 0
for (let seed = Number(from); seed <= Number(to); seed++) {
  const plan = Storm.plan(seed, losses === "1")
  let o
  try { o = Storm.run(plan, redis) } catch (e: any) { console.log("THREW", seed, e.cause?.toString?.() ?? e, JSON.stringify(e.cause?.reasons?.map((r: any) => String(r.defect?.stack ?? r.error ?? r)))); bad++; continue }
  const limit = plan.limits.tokens as any
  worst = Math.max(worst, World.excessOf(o.log, "tokens", limit) / limit.burst - Math.max(0, plan.sizes[1] / limit.burst - 1))
  const b = Storm.broken(o)
  if (b.length > 0) { bad++; console.log("BAD", seed, b.join("; "), "c", plan.concurrency, "done", o.done, "refused", o.refused.length, JSON.stringify(plan.sharing), JSON.stringify(plan.events), "net", plan.network.most, plan.network.lost) }
  if (process.env.LOG) for (const e of o.log) console.log('call', e.at.toFixed(1), e.process, e.agent, e.amounts.tokens)
}
console.log("seeds", from, to, "bad", bad, "worst", worst)
