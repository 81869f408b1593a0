/** The report of a run: the score, and the mutants that survived with the known reasons. */
import { readFileSync, writeFileSync } from "node:fs"
import type { Mutant } from "./mutants.ts"
import { isOf, type Reason, reasonOf, reasons } from "./survivors.ts"

/** The result for a mutant: a test failed, a test never ended, or all passed. */
export type Fate = "found" | "endless" | "survived"

export type Fates = ReadonlyMap<Mutant, Fate>

export const nameOf = ({ file, is, line, was }: Mutant): string => `${file}:${line}  ${was}  ->  ${is}`

/** How many mutants there are, how many were noticed, and in percent. */
const scoreOf = (fates: Fates, of: ReadonlyArray<Mutant>) => {
  const count = (fate: Fate): number => of.filter((mutant) => fates.get(mutant) === fate).length
  const survived = count("survived")
  const all = of.length
  return { all, endless: count("endless"), survived, noticed: all - survived, percent: (100 * (all - survived)) / all }
}

const byFile = (fates: Fates): ReadonlyMap<string, ReadonlyArray<Mutant>> =>
  Map.groupBy(fates.keys(), ({ file }) => file)

/** One line for each file, and one for all. */
export const summary = (fates: Fates): ReadonlyArray<string> =>
  [...byFile(fates), ["all", Array.from(fates.keys())] as const].map(([name, of]) => {
    const { all, endless, noticed, percent, survived } = scoreOf(fates, of)
    const counts = `${noticed - endless} found, ${endless} endless, ${survived} survived`
    return `${name.padEnd(14)} ${counts} of ${all}: ${percent.toFixed(1)} %`
  })

const survivorsOf = (fates: Fates): ReadonlyArray<Mutant> =>
  Array.from(fates)
    .filter(([, fate]) => fate === "survived")
    .map(([mutant]) => mutant)
    .toSorted((a, b) => a.file.localeCompare(b.file) || a.line - b.line)

/** Survivors without a reason and, after a run of all mutants, reasons without a survivor. */
export const problems = (fates: Fates, isWhole: boolean): ReadonlyArray<string> => {
  const survivors = survivorsOf(fates)
  const unexplained = survivors.filter((mutant) => reasonOf(mutant) === undefined)
  const isIdle = (reason: Reason): boolean => !survivors.some((mutant) => isOf(reason, mutant))
  return [
    ...unexplained.map((mutant) => `survived without a reason in survivors.ts: ${nameOf(mutant)}`),
    ...(isWhole
      ? reasons
          .filter(isIdle)
          .map(({ code, file }) => `survivors.ts has a reason for a mutant that was found: ${file}: ${code}`)
      : [])
  ]
}

const isSame = (a: Mutant, b: Mutant): boolean => a.file === b.file && a.code === b.code && reasonOf(a) === reasonOf(b)

/** The table and the list of survivors, in Markdown. */
const page = (fates: Fates): string => {
  const row = (name: string, of: ReadonlyArray<Mutant>): string => {
    const { all, noticed, percent } = scoreOf(fates, of)
    return `| ${name} | ${noticed} | ${all} | ${percent.toFixed(1)} % |`
  }
  const survivors = survivorsOf(fates)
  const places = survivors.filter((mutant, i) => survivors.findIndex((other) => isSame(mutant, other)) === i)
  const items = places.map((place) => {
    const changes = survivors.filter((mutant) => isSame(mutant, place)).map(({ is, was }) => `\`${was}\` → \`${is}\``)
    const code = place.code.replaceAll("|", "\\|")
    const why = reasonOf(place) ?? "A test is missing."
    return `| \`${place.file}\` | \`${code}\` | ${Array.from(new Set(changes)).join(", ").replaceAll("|", "\\|")} | ${why} |`
  })
  return [
    "| file | noticed | of | |",
    "| --- | --- | --- | --- |",
    ...Array.from(byFile(fates), ([file, of]) => row(`\`${file}\``, of)),
    row("all", Array.from(fates.keys())),
    "",
    "The survivors:",
    "",
    "| file | code | change | why |",
    "| --- | --- | --- | --- |",
    ...items
  ].join("\n")
}

const [begin, end] = ["<!-- mutation: npm run mutate -- --log FILE --docs -->", "<!-- /mutation -->"]

/** Writes the score of all mutants into a page, between its two markers. */
export const publish = (path: string, fates: Fates): void => {
  const [before, rest] = readFileSync(path, "utf8").split(begin)
  const after = rest?.split(end)[1]
  if (before === undefined || after === undefined) throw new Error(`${path} has no markers for the score`)
  writeFileSync(path, `${before}${begin}\n\n${page(fates)}\n\n${end}${after}`)
}
