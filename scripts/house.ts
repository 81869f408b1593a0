/**
 * Counts what the rules of the house are about: the lines of code of each folder, the imports that cross folders, circles of
 * imports, and names of several types.
 *
 *     npm run house
 */
import { thousands } from "../src/domain/words.ts"
import {
  circles,
  codeLines,
  importsOf,
  namesOfSeveralTypes,
  packageFiles,
  sourceFiles
} from "../test/support/modules.ts"

const files = [...sourceFiles(), ...packageFiles()]

/** The folder under `src`, or the package; public modules of the library belong to `src` itself. */
const folderOf = (file: string): string => /^(src\/\w+(?=\/)|packages\/\w+|src)/.exec(file)![1]!

const folders = Map.groupBy(files, folderOf)
for (const [folder, own] of [...folders].sort()) {
  const lines = own.reduce((sum, file) => sum + codeLines(file).size, 0)
  console.log(`${folder.padEnd(20)} ${`${own.length}`.padStart(3)} files ${thousands(lines).padStart(7)} lines of code`)
}
const crossing = files.flatMap((file) =>
  importsOf(file).filter(({ from }) => /^(src|packages)\//.test(from) && folderOf(from) !== folderOf(file))
)
console.log(`\n${folders.size} folders, ${files.length} files, ${crossing.length} imports across folders`)
const found = circles(files)
console.log(`${found.length} circles of imports${found.map((circle) => `\n  ${circle}`).join("")}`)
// Each module calls its own options `Options`.
const names = namesOfSeveralTypes(files).filter(([name]) => name !== "Options")
console.log(`${names.length} names of several types`)
for (const [name, places] of names) console.log(`  ${name}: ${places.join(", ")}`)
