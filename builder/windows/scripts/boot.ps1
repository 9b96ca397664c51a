function Invoke-GiltVerb($request) {
    $script:giltStep = 'look'
    $system = Get-CimInstance -ClassName Win32_OperatingSystem
    $version = 'HKLM:\SOFTWARE\Microsoft\Windows NT\CurrentVersion'
    $prefetch = 'HKLM:\SYSTEM\CurrentControlSet\Control\Session Manager\Memory Management\PrefetchParameters'
    @{
        bootId = Get-GiltValue $prefetch 'BootId'
        lastBoot = $system.LastBootUpTime.ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ')
        clock = [DateTime]::UtcNow.ToString('yyyy-MM-ddTHH:mm:ssZ')
        pending = Get-GiltPending $request.registryKeys
        servicing = Test-GiltServicing
        build = [int](Get-GiltValue $version 'CurrentBuildNumber')
        ubr = Get-GiltValue $version 'UBR'
        edition = [string](Get-GiltValue $version 'EditionID')
        kbs = @(Get-CimInstance -ClassName Win32_QuickFixEngineering | ForEach-Object { [string]$_.HotFixID })
    }
}
