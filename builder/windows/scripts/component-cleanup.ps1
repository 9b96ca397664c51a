# Superseded components go. Not while something is pending: with /ResetBase that ruins the store.
function Invoke-GiltProgramOf($parameters) {
    $script:giltStep = 'pending'
    $hard = @((Get-GiltPending @()) | Where-Object { -not $_.soft })
    if ($hard.Count -or (Test-GiltServicing)) { throw ('servicing is pending: ' + (($hard | ForEach-Object { $_.source }) -join ', ')) }
    $script:giltStep = 'clean'
    $arguments = @('/Online', '/Cleanup-Image', '/StartComponentCleanup')
    if ($parameters.resetBase) { $arguments += '/ResetBase' }
    $code = Invoke-GiltProgram 'dism.exe' $arguments @(0, 3010)
    @{ results = @(); rebootRequired = ($code -eq 3010) }
}
