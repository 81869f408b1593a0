/**
 * Runs the benchmarks one after the other: all of benchmark/*.ts, or those whose name contains one of the arguments. The
 * first argument that starts with a dash, and all after it, are passed to each benchmark. With `--help` they only say what they
 * measure and take.
 */
import { spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const folder = join(import.meta.dirname, "../benchmark")
const args = process.argv.slice(2)
const firstOption = args.findIndex((arg) => arg.startsWith("-"))
const wanted = firstOption === -1 ? args : args.slice(0, firstOption)
const options = firstOption === -1 ? [] : args.slice(firstOption)
const files = readdirSync(folder)
  .filter((file) => file.endsWith(".ts"))
  .filter((file) => wanted.length === 0 || wanted.some((part) => file.includes(part)))
  .sort()

if (files.length === 0) {
  console.error(`bench: nothing in benchmark/ matches ${wanted.join(" ") || "*.ts"}`)
  process.exit(1)
}

/** The comment at the top of a benchmark. */
const helpOf = (file: string): string => {
  const [comment] = readFileSync(join(folder, file), "utf8").split(" */\n", 1)
  return comment!.replace("/**\n", "").replaceAll(/^ \* ?/gm, "")
}

for (const file of files) {
  console.log(`\n# ${file}`)
  if (options.includes("--help")) {
    console.log(helpOf(file))
    continue
  }
  const { status } = spawnSync(process.execPath, [...process.execArgv, join(folder, file), ...options], {
    stdio: "inherit"
  })
  if (status !== 0) process.exit(status ?? 1)
}
