# The last words: what let the build in goes, and the machine switches itself off.
function Invoke-GiltVerb($request) {
    $script:giltStep = 'task'
    Unregister-ScheduledTask -TaskName 'gilt-sysprep' -Confirm:$false -ErrorAction SilentlyContinue
    $script:giltStep = 'power'
    [void](Invoke-GiltProgram 'shutdown.exe' @('/s', '/t', '8', '/f', '/d', 'p:4:1') @(0))
    $script:giltStep = 'keys'
    Get-NetFirewallRule -Name 'gilt-ssh' -ErrorAction SilentlyContinue | Remove-NetFirewallRule
    Set-Service -Name sshd -StartupType Manual
    Remove-Item -LiteralPath (Join-Path $env:ProgramData 'ssh\administrators_authorized_keys') -Force
    Remove-Item -Path (Join-Path $env:ProgramData 'ssh\ssh_host_*') -Force
    Remove-Item -Path (Join-Path $env:ProgramData 'ssh\logs\*') -Force -ErrorAction SilentlyContinue
    Remove-Item -LiteralPath (Join-Path $env:SystemRoot 'System32\Sysprep\gilt-unattend.xml') -Force -ErrorAction SilentlyContinue
    Remove-Item -LiteralPath $giltRoot -Recurse -Force
    @{}
}
