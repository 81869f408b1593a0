/**
 * Generates modules that re-export every public value, spread of a type, and member of a type, without annotations. To
 * write their declarations the compiler must name each inferred type, which works only if the type is public.
 * `scripts/packCheck.ts` compiles the modules in a separate project.
 */
import { join } from "node:path"
import ts from "typescript6"
import { publicModules, root } from "../test/support/modules.ts"

const options: ts.CompilerOptions = {
  module: ts.ModuleKind.NodeNext,
  customConditions: ["@floodgate/source"],
  allowImportingTsExtensions: true,
  strict: true,
  noEmit: true,
  skipLibCheck: true,
  types: ["node"]
}

const isOurs = (symbol: ts.Symbol): boolean =>
  symbol.declarations?.some(
    (node) => node.getSourceFile().fileName.startsWith(root) && !node.getSourceFile().fileName.includes("node_modules")
  ) === true

/** The source of one generated module for each public module, by its name. */
export const everyName = (): ReadonlyMap<string, string> => {
  const modules = publicModules().filter(({ name }) => name !== "floodgate")
  const program = ts.createProgram(
    modules.map(({ file }) => join(root, file)),
    options
  )
  const checker = program.getTypeChecker()
  return new Map(
    modules.map(({ file, name }) => {
      const uses = usesOf(checker, checker.getSymbolAtLocation(program.getSourceFile(join(root, file))!)!)
      const exports = uses.map((use, index) => `export const x${index} = ${use}`)
      return [name, [`import * as m from "${name}"`, ...exports].join("\n")]
    })
  )
}

/** Whether a name is exported as a type, even if it also names a value elsewhere. */
const isTypeOnly = ({ declarations = [] }: ts.Symbol): boolean =>
  declarations.some((node) => ts.isExportSpecifier(node) && (node.isTypeOnly || node.parent.parent.isTypeOnly))

/** An expression over `m` for each export of a module and each member. */
const usesOf = (checker: ts.TypeChecker, module: ts.Symbol, path = "m"): ReadonlyArray<string> =>
  checker.getExportsOfModule(module).flatMap((exported) => {
    const target = (exported.flags & ts.SymbolFlags.Alias) === 0 ? exported : checker.getAliasedSymbol(exported)
    const name = `${path}.${exported.name}`
    if ((target.flags & ts.SymbolFlags.ValueModule) !== 0) return usesOf(checker, target, name)
    const ofType = (target.flags & ts.SymbolFlags.Type) === 0 ? [] : usesOfType(checker, target, name)
    const hasValue = (target.flags & ts.SymbolFlags.Value) !== 0 && !isTypeOnly(exported)
    return !hasValue ? ofType : [...ofType, ...usesOfValue(checker, target, name)]
  })

/** Whether `x.name` is valid: the key is neither a symbol nor private. */
const isWritable = ({ declarations = [], name }: ts.Symbol): boolean =>
  /^\w+$/.test(name) &&
  !name.startsWith("__@") &&
  declarations.every((node) => (ts.getCombinedModifierFlags(node) & ts.ModifierFlags.Private) === 0)

const isObject = (type: ts.Type): boolean => (type.flags & ts.TypeFlags.Object) !== 0

const usesOfType = (checker: ts.TypeChecker, symbol: ts.Symbol, name: string): ReadonlyArray<string> => {
  const type = checker.getDeclaredTypeOfSymbol(symbol)
  const parameters = (symbol.declarations ?? []).flatMap((node) =>
    ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node) || ts.isClassDeclaration(node)
      ? [...(node.typeParameters ?? [])]
      : []
  )
  const written = parameters.length === 0 ? name : `${name}<${parameters.map(() => "any").join(", ")}>`
  const members = checker
    .getPropertiesOfType(type)
    .filter((member) => isOurs(member) && isWritable(member))
    .map((member) => `(x: ${written}) => x.${member.name}`)
  // A spread of a class instance drops its methods and getters.
  return isObject(type) && !type.isClass() ? [`(x: ${written}) => ({ ...x })`, ...members] : members
}

const usesOfValue = (checker: ts.TypeChecker, symbol: ts.Symbol, name: string): ReadonlyArray<string> => {
  const service = checker.getTypeOfSymbol(symbol).getProperty("Service")
  return service !== undefined && isObject(checker.getTypeOfSymbol(service))
    ? [name, `(x: (typeof ${name})["Service"]) => ({ ...x })`]
    : [name]
}

/**
 * The library's modules that the declarations of some files name, and the compiler's errors. Each file is compiled as a
 * program of its own, because a type gets a public name only if the module that exports it is loaded.
 */
export const declared = (
  files: ReadonlyArray<string>,
  compilerOptions: ts.CompilerOptions
): { readonly names: ReadonlySet<string>; readonly problems: ReadonlyArray<string> } => {
  const host = ts.createCompilerHost(compilerOptions)
  const read = host.getSourceFile.bind(host)
  const sources = new Map<string, ts.SourceFile | undefined>()
  host.getSourceFile = (name, ...how) => {
    if (!sources.has(name)) sources.set(name, read(name, ...how))
    return sources.get(name)
  }
  const names = new Set<string>()
  const problems = files.flatMap((file) => {
    const program = ts.createProgram([file], compilerOptions, host)
    const source = program.getSourceFile(file)
    const { diagnostics } = program.emit(
      source,
      (_, text) => {
        for (const [, name] of text.matchAll(/(?:import\(|from )"(floodgate\b[^"]*)"/g)) names.add(name!)
      },
      undefined,
      true
    )
    return [...program.getSemanticDiagnostics(source), ...diagnostics].map(
      ({ messageText, start = 0 }) =>
        `${source!.text.slice(0, start).split("\n").length}: ${ts.flattenDiagnosticMessageText(messageText, " ")} (${file})`
    )
  })
  return { names, problems }
}
