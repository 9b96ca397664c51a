# Languages first, then capabilities, then features: the order of Microsoft's servicing guide.
function Invoke-GiltProgramOf($parameters) {
    $restart = $false
    $source = @{}
    if ($parameters.source) { $source = @{ Source = [string]$parameters.source; LimitAccess = $true } }
    foreach ($file in @($parameters.packages)) {
        $script:giltStep = [string]$file
        Write-Host ('adding ' + $file)
        $done = Add-WindowsPackage -Online -PackagePath $file -NoRestart
        $restart = $restart -or $done.RestartNeeded
    }
    foreach ($name in @($parameters.capabilities)) {
        $script:giltStep = [string]$name
        Write-Host ('adding ' + $name)
        $done = Add-WindowsCapability -Online -Name $name @source
        $restart = $restart -or $done.RestartNeeded
    }
    foreach ($name in @($parameters.enable)) {
        $script:giltStep = [string]$name
        Write-Host ('enabling ' + $name)
        $done = Enable-WindowsOptionalFeature -Online -FeatureName $name -All -NoRestart @source
        $restart = $restart -or $done.RestartNeeded
    }
    foreach ($name in @($parameters.disable)) {
        $script:giltStep = [string]$name
        Write-Host ('disabling ' + $name)
        $done = Disable-WindowsOptionalFeature -Online -FeatureName $name -NoRestart
        $restart = $restart -or $done.RestartNeeded
    }
    @{ results = @(); rebootRequired = [bool]$restart }
}
